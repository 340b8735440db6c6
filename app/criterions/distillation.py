"""A student learns each next word's whole distribution from a teacher, beside the word itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from app.data.batch import Batch
from app.interfaces import Criterion, Loss, Model, Task
from app.modules.token_loss import lprobs_loss, token_logs, token_loss
from app.ranges import positive, probability


@dataclass
class DistillationConfig:
    teacher: str  # run or checkpoint directory of a model with the same vocabularies; not needed after training
    alpha: float  # weight of what the teacher says; the text itself has 1 - alpha
    temperature: float  # both distributions are softened by it: scores are divided by it
    label_smoothing: float  # of the text's part: probability that is spread over the words that are not the target
    sentence_avg: bool  # divide gradients by sentences rather than by target tokens

    def check(self) -> Iterator[str]:
        yield from probability(self, "label_smoothing")
        yield from positive(self, "temperature")
        if not 0 <= self.alpha <= 1:
            yield f"alpha={self.alpha}: must be between 0 and 1"
        if not Path(self.teacher).is_dir():
            yield f"teacher={self.teacher}: no such run or checkpoint directory"


class Distillation(Criterion):
    """Word-level distillation (Kim and Rush, 2016, sec. 3.1; Hinton et al., 2015, sec. 2). Not in fairseq.

    The loss is (1 - alpha) times the label-smoothed cross-entropy of the text plus alpha times the divergence of the
    student's distribution from the teacher's, whose gradient is that of Kim and Rush's cross-entropy. It is multiplied
    by temperature ** 2, so that gradients keep their size (Hinton et al.). Validation does not ask the teacher: its
    loss is the text's alone, and the teacher may be gone by then. The teacher has no dropout and is not saved.
    """

    def __init__(self, cfg: DistillationConfig, task: Task):
        super().__init__(cfg, task)
        self.cfg = cfg
        self.pad = task.target_vocabulary.pad
        self.teacher_path = cfg.teacher
        self._teachers: list[Model] = []  # in a list, so that it is no part of this module's state

    def teach(self, teacher: Model) -> None:
        self._teachers = [teacher.eval().requires_grad_(False)]

    def forward(self, model: Model, batch: Batch) -> Loss:
        sample_size = len(batch) if self.cfg.sentence_avg else batch.num_tokens
        if not model.training:
            sums = token_loss(model, model(batch), batch.target, self.pad, self.cfg.label_smoothing)
            return Loss(sums.loss, sample_size, token_logs(sums.loss, sums.nll, batch.num_tokens, len(batch)))
        (teacher,) = self._teachers
        real = batch.target.flatten().ne(self.pad).nonzero().squeeze(1)
        scores = scores_at(model, batch, real)  # [N, V]
        with torch.no_grad():
            wanted = scores_at(teacher, batch, real)
        sums = lprobs_loss(scores.log_softmax(-1), batch.target.flatten()[real], self.cfg.label_smoothing)
        divergence = self._divergence(scores, wanted)
        loss = (1 - self.cfg.alpha) * sums.loss + self.cfg.alpha * divergence
        logs = token_logs(loss, sums.nll, batch.num_tokens, len(batch))
        return Loss(loss, sample_size, {**logs, "distillation_loss": divergence.detach()})

    def _divergence(self, scores: Tensor, wanted: Tensor) -> Tensor:
        """[N, V] of student and teacher -> KL(teacher || student) of the softened distributions, summed."""
        student, teacher = ((each / self.cfg.temperature).log_softmax(-1) for each in (scores, wanted))
        return self.cfg.temperature**2 * F.kl_div(student, teacher, reduction="sum", log_target=True)


def scores_at(model: Model, batch: Batch, positions: Tensor) -> Tensor:
    """A model's scores [N, V] in fp32 at N of the batch's target positions, counted through the rows of [B, T]."""
    return model.project(model(batch).flatten(0, 1)[positions]).float()
