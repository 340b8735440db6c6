"""Several criterions as one: the weighted sum of their losses."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from app.data.batch import Batch
from app.errors import ConfigError
from app.interfaces import Criterion, Loss, Model, Task
from app.plugins import configure
from app.ranges import positive


@dataclass
class PartConfig:
    weight: float  # what this part's loss is multiplied by
    criterion: dict[str, Any]  # an option of the config group `criterion`


@dataclass
class CompositeLossConfig:
    parts: dict[str, PartConfig]  # each is logged as its name and `_loss`; the first gives the other numbers

    def check(self) -> Iterator[str]:
        if not self.parts:
            yield "parts={}: name at least one, such as parts.words, with weight and criterion"
        for name, part in self.parts.items():
            yield from (f"parts.{name}.{fault}" for fault in positive(part, "weight"))
            try:
                configure(part.criterion, Criterion, f"parts.{name}.criterion")
            except ConfigError as error:
                yield from error.faults

    def classes(self) -> list[type]:
        """The parts' classes, for the rules between a criterion, its model and its task."""
        return [configure(part.criterion, Criterion, check=False).func for part in self.parts.values()]  # type: ignore[attr-defined]


class CompositeLoss(Criterion):
    """The weighted sum of named criterions, each of which runs the model by itself.

    Weights are those of means: where a part counts something else than the first one (sentences, tokens), its sum is
    brought to the first one's size. `nll_loss`, accuracy and counts are the first part's. fairseq's class of this name
    is another thing: it averages one criterion over a model's several outputs.
    """

    def __init__(self, cfg: CompositeLossConfig, task: Task):
        super().__init__(cfg, task)
        self.weights = {name: part.weight for name, part in cfg.parts.items()}
        made = {name: configure(part.criterion, Criterion, check=False)(task) for name, part in cfg.parts.items()}
        self.parts = nn.ModuleDict(made)

    def forward(self, model: Model, batch: Batch) -> Loss:
        losses = {name: part(model, batch) for name, part in self.parts.items()}
        first: Loss = next(iter(losses.values()))
        values = {name: loss.value * (first.sample_size / max(loss.sample_size, 1)) for name, loss in losses.items()}
        total: Tensor = sum(self.weights[name] * value for name, value in values.items())
        own = {f"{name}_loss": value.detach() for name, value in values.items()}
        return Loss(total, first.sample_size, {**first.logs, **own, "loss": total.detach()})
