"""What the non-autoregressive Transformers share; no option of `conf/model` names this one."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from app.data.vocabulary import Vocabulary
from app.interfaces import Cache, Draft, EncoderOut, Prediction, RefiningModel, Task
from app.modules.bert_init import init_bert_params
from app.modules.draft_decoder import DraftDecoder, DraftDecoderConfig
from app.modules.embedding import EmbeddingConfig, token_embedding
from app.modules.encoder_decoder import EncoderDecoderConfig
from app.modules.length_prediction import LengthDecoder, blank, copied
from app.modules.transformer_encoder import TransformerEncoder
from app.ranges import at_least


@dataclass
class DraftTransformerConfig(EncoderDecoderConfig):
    """Longest source and target count eos, not bos; fairseq's count both: its 1024 is 1023 here."""

    apply_bert_init: bool  # all weights start as N(0, 0.02^2), as BERT's

    def embedding(self, side: str) -> EmbeddingConfig:
        plain = super().embedding(side)
        return replace(plain, max_positions=plain.max_positions + 1)  # bos

    def decoder(self) -> DraftDecoderConfig:
        return DraftDecoderConfig(
            embedding=self.embedding("decoder"),
            layer=self.layer("decoder"),
            layers=self.decoder_layers,
            output_dim=self.decoder_output_dim,
            final_norm=self.decoder_normalize_before,
            share_input_output=self.shares_output,
            memory_dim=self.encoder_embed_dim,
        )


class DraftTransformer(RefiningModel):
    """An encoder, and a decoder that sees all of its draft. How drafts come to be is left to each model."""

    decoder: DraftDecoder

    def __init__(self, cfg: DraftTransformerConfig, task: Task):
        super().__init__(cfg, task)
        self.max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        source, target = task.source_vocabulary, task.target_vocabulary
        embed_tokens = token_embedding(len(source), cfg.encoder_embed_dim, source.pad)
        self.encoder = TransformerEncoder(cfg.encoder(), embed_tokens)
        if not cfg.share_all_embeddings:
            embed_tokens = token_embedding(len(target), cfg.decoder_embed_dim, target.pad)
        self.decoder = self.make_decoder(embed_tokens, len(target))
        if cfg.apply_bert_init:
            self.apply(init_bert_params)

    @abstractmethod
    def make_decoder(self, embed_tokens: nn.Embedding, words: int) -> DraftDecoder:
        """The decoder, with what else the model predicts."""

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        return EncoderOut(*self.encoder.states(src_tokens))

    def decode(
        self, prev_output_tokens: Tensor, encoder_out: EncoderOut | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Features of the pieces that should stand where the draft's do; a cache is not possible."""
        assert encoder_out is not None
        features: Tensor = self.decoder(prev_output_tokens, encoder_out)
        return features

    def empty_draft(self, encoder_out: EncoderOut) -> Draft:
        """bos and eos for every sentence."""
        ends = torch.tensor([Vocabulary.bos, Vocabulary.eos], device=encoder_out.states.device)
        tokens = ends.repeat(len(encoder_out.states), 1)
        return Draft(tokens, torch.zeros(tokens.shape, device=tokens.device))

    def project(self, features: Tensor) -> Tensor:
        scores: Tensor = self.decoder.output_projection(features)
        return scores

    @property
    def output_projection(self) -> nn.Linear:
        return self.decoder.output_projection


@dataclass
class LengthTransformerConfig(DraftTransformerConfig):
    pred_length_offset: bool  # predict how much longer than the source the target is, rather than its length
    sg_length_pred: bool  # the length prediction's gradient stops at the encoder
    length_loss_factor: float  # weight of the length's loss
    src_embedding_copy: bool  # the decoder's first input is the source's embeddings, spread over the draft

    def check(self) -> Iterator[str]:
        yield from super().check()
        yield from at_least(self, 0, "length_loss_factor")


class LengthTransformer(DraftTransformer):
    """Drafts have the predicted length, and keep it."""

    predicts_length = True
    decoder: LengthDecoder

    def __init__(self, cfg: LengthTransformerConfig, task: Task):
        self._lengths = cfg
        super().__init__(cfg, task)

    def make_decoder(self, embed_tokens: nn.Embedding, words: int) -> LengthDecoder:
        cfg = self._lengths
        return LengthDecoder(cfg.decoder(), embed_tokens, words, cfg.pred_length_offset, cfg.sg_length_pred)

    def encode(self, src_tokens: Tensor, src_lengths: Tensor) -> EncoderOut:
        out = super().encode(src_tokens, src_lengths)
        if not self._lengths.src_embedding_copy:
            return out
        return out._replace(more=(self.encoder.embed_tokens(src_tokens) * self.encoder.scale,))

    def features(self, tokens: Tensor, encoder_out: EncoderOut, step: int) -> Tensor:
        """[B, T] -> [B, T, D]; in step 0 the source's embeddings may stand for the tokens'."""
        if step > 0 or not self._lengths.src_embedding_copy:
            return self.decode(tokens, encoder_out)
        vectors = copied(encoder_out.more[0], encoder_out.keep, tokens, Vocabulary.pad)
        features: Tensor = self.decoder(tokens, encoder_out, vectors)
        return features

    def rewritten(self, draft: Draft, encoder_out: EncoderOut, step: int) -> Draft:
        """The likeliest piece at every position, bos and eos included."""
        features = self.features(draft.tokens, encoder_out, step)
        return Draft(*self.decoder.write(features, *draft, draft.tokens.ne(Vocabulary.pad)))

    def length_prediction(self, encoder_out: EncoderOut, target: Tensor) -> Prediction:
        """Of the lengths of `target` [B, T]."""
        return Prediction(
            self.decoder.length_features(encoder_out),
            self.decoder.embed_length.weight,
            self.decoder.length_target(target, encoder_out),
            label_smoothing=0.0,
            factor=self._lengths.length_loss_factor,
        )

    def word_prediction(self, features: Tensor, target: Tensor, counts: Tensor) -> Prediction:
        """Of the pieces of `target` [B, T] from features [B, T, D], where `counts` [B, T]."""
        return Prediction(features[counts], self.output_projection.weight, target[counts], is_word=True)

    def initialize(self, encoder_out: EncoderOut, beam: int = 1) -> Draft:
        lengths = self.decoder.predicted_lengths(encoder_out, beam)
        tokens = blank(lengths, Vocabulary.bos, Vocabulary.pad, Vocabulary.eos, Vocabulary.unk)
        return Draft(tokens, torch.zeros(tokens.shape, device=tokens.device))
