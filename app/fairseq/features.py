"""Options of fairseq's models that have no field here: what each asks for, and which mean nothing on their own."""

from app.fairseq.flags import Flag

PARTS_OF_WHAT_IS_OFF = (
    "character_filters character_embedding_dim char_embedder_highway_layers base_sublayers base_shuffle "
    "quant_noise_pq_block_size min_params_to_wrap alignment_heads alignment_layer full_context_alignment "
    "iter_decode_with_external_reranker ngram_counts ngram_predictor include_index"
)
SETTLED_BY_WEIGHTS = (
    "adaptive_softmax_cutoff adaptive_input_cutoff adaptive_softmax_dropout adaptive_softmax_factor "
    "adaptive_input_factor"
)
FEATURES = (
    Flag("encoder_embed_path decoder_embed_path", "", "weights come with finetune_from, never from a file of vectors"),
    Flag("encoder_freeze_embed decoder_freeze_embed freeze_encoder", "", "nothing is frozen", words="0", stops=True),
    Flag("encoder_layerdrop decoder_layerdrop", "", "LayerDrop is not in this model", stops=True),
    Flag("encoder_layers_to_keep decoder_layers_to_keep", "", "layers are not taken out", stops=True),
    Flag("quant_noise_pq quant_noise_scalar", "", "not here", stops=True),
    Flag("character_embeddings char_inputs", "", "words are not made of characters here", words="0", stops=True),
    Flag("base_layers", "", "BASE layers are not here", stops=True),
    Flag("merge_src_tgt_embed", "", "not here", words="0", stops=True),
    Flag("adaptive_input tie_adaptive_weights tie_adaptive_proj", "", "not in this model", words="0", stops=True),
    Flag("encoder_xformers_att_config decoder_xformers_att_config", "", "torch's own attention", stops=True),
    Flag("checkpoint_activations offload_activations", "", "the numbers are the same without", words="0"),
    Flag("relu_dropout", "", "an old name of --activation-dropout", stops=True),
    Flag("decoder_input_dim decoder_output_dim", "", "follow the decoder's width in this model"),
    Flag("spectral_norm_classification_head", "", "not here", words="0", stops=True),
    Flag("layernorm_embedding", "", "not in this model", words="0", stops=True),
    Flag("untie_weights_roberta", "", "not in this model", words="0", stops=True),
    Flag("pooler_activation_fn pooler_dropout", "", "of classification heads"),
    Flag("export no_decoder_final_norm", "", "not in this model", words="0", stops=True),
    Flag("max_source_positions max_target_positions", "", "this task has a limit of its own"),
    Flag(PARTS_OF_WHAT_IS_OFF, "", "belongs to what is off"),
    Flag(SETTLED_BY_WEIGHTS, "", "not in this model"),
)
