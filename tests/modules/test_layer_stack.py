"""LayerDrop: what training leaves out, and models that a part of the layers has been taken from."""

from pathlib import Path

import pytest
import torch
from torch import nn

from app.errors import ConfigError
from app.modules.layer_stack import LayerStack
from app.runtime.checkpoint import Checkpoint
from tests.runs import configured, train


def test_training_leaves_layers_out_at_the_given_rate() -> None:
    torch.manual_seed(1)
    stack = LayerStack(nn.Identity, 8, layerdrop=0.25)
    taken = [len(list(stack)) for _ in range(500)]
    assert sum(taken) / 500 == pytest.approx(6.0, abs=0.2)
    assert len(set(taken)) > 3
    assert len(list(stack.eval())) == len(stack) == 8


def test_no_random_number_is_drawn_without_layerdrop() -> None:
    before = torch.get_rng_state()
    assert len(list(LayerStack(nn.Identity, 3))) == 3
    assert torch.equal(before, torch.get_rng_state())


def test_kept_layers_have_their_names_and_first_numbers() -> None:
    torch.manual_seed(1)
    whole = LayerStack(lambda: nn.Linear(2, 2), 4)
    torch.manual_seed(1)
    kept = LayerStack(lambda: nn.Linear(2, 2), 4, layers_to_keep=[0, 3])
    assert [name for name, _ in kept.named_children()] == ["0", "3"]
    assert kept[-1] is kept.all()[1]
    assert torch.equal(kept[1].weight, whole[3].weight)  # type: ignore[arg-type]


def test_a_run_is_pruned_by_starting_from_it(tmp_path: Path) -> None:
    deep = ["model.encoder_layers=3", "model.decoder_layers=3", "trainer.validate_interval=0"]
    dropped = ["model.encoder_layerdrop=0.3", "model.decoder_layerdrop=0.3", "trainer.max_update=4"]
    first = train(tmp_path, *deep, *dropped).rename(tmp_path / "first")
    kept = ["model.encoder_layers_to_keep=[0,2]", "model.decoder_layers_to_keep=[1]"]
    start = [f"checkpoint.finetune_from={first}", "checkpoint.finetune_partial=true"]
    second = train(tmp_path, *deep, *kept, *start, "trainer.max_update=1", "optimizer.lr=1e-12")
    before, after = (
        Checkpoint.open(next((run / "checkpoints").glob("update_*"))).tensors("model.safetensors")
        for run in (first, second)
    )
    layers = {name.rsplit("layers.", 1)[0] + name.rsplit("layers.", 1)[1][0] for name in after if "layers." in name}
    assert layers == {"encoder.0", "encoder.2", "decoder.1"}
    for name in after:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kept", ["[]", "[2,1]", "[0,6]", "[-1,2]"])
def test_layers_that_are_not_there_are_refused(kept: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(["task.data=/nowhere", f"model.encoder_layers_to_keep={kept}"])
    told = "must be rising numbers from 0 to 5, such as [0,2]"
    assert [
        fault for fault in caught.value.faults if fault.startswith("model.encoder_layers_to_keep=") and told in fault
    ]
