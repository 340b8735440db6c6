"""Beam search by CTranslate2, in the place of ours: `engine=ctranslate2`."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from app.assembly import Restored
from app.errors import ConfigError
from app.exporters.to_ctranslate2 import PAD, export, need_ctranslate2, symbols
from app.interfaces import Model
from app.search import Hypothesis, Search
from app.search.beam import BeamSearch

COMPUTE = {"fp32": "float32", "int8": "int8_float32"}
NEUTRAL = {  # options of the search that CTranslate2 does not have, with the value that asks for nothing
    "unnormalized": False,
    "unkpen": 0.0,
    "temperature": 1.0,
    "match_source_len": False,
    "bos_token": None,
    "eos_token": None,
    "lm_path": None,
    "print_alignment": False,
}


class CTranslate2Search(Search):
    """The same hypotheses as our beam search, by another program.

    Two differences: the longest output is that of the batch's longest source, and an output that reaches it ends
    without paying for eos. Scores of single tokens are not known: `positional_scores` are empty.
    """

    def __init__(self, search: Search, runs: list[Restored], precision: str, num_threads: int):
        """`search` says what is wanted. Raises `ConfigError` for what CTranslate2 does not have."""
        ctranslate2 = need_ctranslate2("engine")
        if found := faults(search, runs, precision):
            raise ConfigError(found)
        assert isinstance(search, BeamSearch)
        self.search, self.task = search, runs[0].task
        self.pieces = symbols(self.task.target_vocabulary)
        self.longest = runs[0].model.max_positions[1]
        with tempfile.TemporaryDirectory() as directory:  # CTranslate2 keeps what it has read in memory
            export(runs[0], Path(directory))
            self.translator = ctranslate2.Translator(
                directory, compute_type=COMPUTE[precision], intra_threads=num_threads or torch.get_num_threads()
            )

    def generate(
        self, models: list[Model], src_tokens: Tensor, src_lengths: Tensor, prefix_tokens: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """See `Search`; `models` are left aside."""
        source, cfg = self.task.source_vocabulary, self.search.cfg
        rows = [[source.pieces[i] for i in row[:n]] for row, n in zip(src_tokens.tolist(), (src_lengths - 1).tolist())]
        limits = self.search.limits(src_tokens, src_lengths, 0, self.longest)
        results = self.translator.translate_batch(
            rows,
            beam_size=self.search.beam,
            num_hypotheses=cfg.nbest,
            length_penalty=cfg.lenpen,
            no_repeat_ngram_size=cfg.no_repeat_ngram_size,
            suppress_sequences=[[self.pieces[i]] for i in self.search.banned],
            min_decoding_length=cfg.min_len,
            max_decoding_length=int(limits.max()) + 1,
            max_input_length=0,
            return_scores=True,
        )
        return [[self._hypothesis(*each) for each in zip(result.hypotheses, result.scores)] for result in results]

    def _hypothesis(self, pieces: list[str], score: float) -> Hypothesis:
        target = self.task.target_vocabulary
        ids = [target.pad if piece == PAD else target.index(piece) for piece in pieces]
        return Hypothesis(torch.tensor([*ids, target.eos]), score, torch.empty(0))


def faults(search: Search, runs: list[Restored], precision: str) -> list[str]:
    """What is asked for and not there."""
    if len(runs) > 1:
        return [f"checkpoint: engine=ctranslate2 takes one model, not {len(runs)}"]
    if type(search) is not BeamSearch:
        return ["search: engine=ctranslate2 has beam and greedy; choose one, or engine=torch"]
    if precision not in COMPUTE:
        return [f"precision={precision}: engine=ctranslate2 computes in {' or '.join(COMPUTE)}"]
    if search.cfg.lenpen == 0:
        return ["search.lenpen=0: engine=ctranslate2 would end its search earlier; choose engine=torch"]
    values = vars(search.cfg)
    return [
        f"search.{name}={values[name]}: engine=ctranslate2 does not have it"
        for name, neutral in NEUTRAL.items()
        if values[name] != neutral
    ]
