"""`batching.max_tokens=auto`: what is found fits, is the same on all ranks, and stays what it is in a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app.data.batch import Batch
from app.errors import ConfigError, OutOfMemory
from app.fitting import FOUND, largest
from app.run_config import CONFIG, stored
from app.runtime import room
from app.runtime.distributed import Workers
from app.trainer import Trainer
from tests.runs import train

AUTO = "batching.max_tokens=auto"
MOST = 900  # positions of both sides of a batch that "memory" holds


def positions(batch: Batch) -> int:
    return batch.src_tokens.numel() + batch.prev_output_tokens.numel()


def limit_memory(patch: pytest.MonkeyPatch, most: int, tried: list[int]) -> None:
    forward_backward = Trainer.forward_backward

    def limited(trainer: Trainer, batch: Batch) -> Any:
        tried.append(positions(batch))
        if positions(batch) > most:
            raise torch.OutOfMemoryError("none left")
        return forward_backward(trainer, batch)

    patch.setattr(Trainer, "forward_backward", limited)


def max_tokens(run_dir: Path) -> Any:
    return stored(run_dir / CONFIG)["batching"]["max_tokens"]


class TestLargest:
    @pytest.mark.parametrize("most", [300, 1000, 5000])
    def test_it_is_the_largest_to_a_sixteenth(self, most: int) -> None:
        found = largest(lambda limit: limit * (limit <= most), 256, 2**13)
        assert most * 15 / 16 - 8 <= found <= most

    def test_it_ends_where_it_must(self) -> None:
        assert largest(lambda limit: limit, 300, 2**13) == 2**13

    def test_it_ends_where_all_sentences_are_in_one_batch(self) -> None:
        assert largest(lambda limit: min(limit, 700), 256, 2**13) == 1024

    def test_a_sentence_longer_than_any_other_limit_decides(self) -> None:
        assert largest(lambda limit: limit, 9000, 2**13) == 9000

    def test_nothing_fits(self) -> None:
        with pytest.raises(OutOfMemory, match="not even batches of 256 tokens fit into memory; leave long"):
            largest(lambda _: 0, 256, 2**13)


class TestCPU:
    def test_a_step_that_would_take_too_much_is_not_tried(self) -> None:
        free, step, held = room.CPU(0, 1), [], []
        free.budget = 3 * 2**24
        assert free.fits(lambda: held.append(torch.ones(2**22)), 1)  # 16 MiB
        assert 2**23 < free.per_size < 3 * 2**23
        assert not free.fits(lambda: step.append("tried"), 10)
        assert not step

    def test_a_step_that_takes_too_much_does_not_fit(self) -> None:
        free = room.CPU(0, 1)
        free.budget = 2**22
        assert not free.fits(lambda: torch.ones(2**25).sum(), 1)  # 128 MiB: more than any heap keeps free

    def test_processes_share_what_is_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(room, "free_memory", lambda: 1000)
        assert [room.CPU(10, share).budget for share in (1, 2)] == [690, 340]

    def test_a_container_has_its_own_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = room.free_memory()
        (tmp_path / "memory.max").write_text("5000\n")
        (tmp_path / "memory.current").write_text("2000\n")
        monkeypatch.setattr(room, "CONTAINER", tmp_path)
        assert room.free_memory() == 3000 < whole
        (tmp_path / "memory.max").write_text("max\n")
        assert room.free_memory() > 3000

    def test_other_errors_are_not_ours(self) -> None:
        linear = nn.Linear(2, 2)
        with pytest.raises(RuntimeError, match="shapes"):
            room.CPU(0, 1).fits(lambda: linear(torch.ones(1, 3)), 1)


def test_what_is_found_fits_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    with monkeypatch.context() as patch:
        limit_memory(patch, MOST, tried)
        run_dir = train(tmp_path, AUTO, "trainer.max_update=3")
    found = max_tokens(run_dir)
    assert max(tried) > MOST
    assert MOST / 2 * 0.7 < found < MOST
    assert json.loads((run_dir / FOUND).read_text()) == found
    train(tmp_path, AUTO, "trainer.max_update=5")  # with all the memory there is, which would be another number
    assert max_tokens(run_dir) == found
    train(tmp_path, f"batching.max_tokens={found}", "trainer.max_update=6")


def test_a_start_that_was_broken_off_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint stands there yet; with another model everything is tried anew."""
    with monkeypatch.context() as patch:
        limit_memory(patch, MOST, [])
        patch.setattr(Trainer, "train", lambda _: {})
        run_dir = train(tmp_path, AUTO)
    found = max_tokens(run_dir)
    monkeypatch.setattr(Trainer, "train", lambda _: {})
    train(tmp_path, AUTO)
    assert max_tokens(run_dir) == found
    train(tmp_path, AUTO, "model.dropout=0.2")
    assert max_tokens(run_dir) > found
    train(tmp_path, "batching.max_tokens=300")
    train(tmp_path, AUTO)
    assert max_tokens(run_dir) > found


def test_what_does_not_fit_on_one_rank_fits_on_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def gather(_: Workers, value: Any) -> list[Any]:
        if not isinstance(value, bool):
            return [value]
        asked.append(value)
        return [value, len(asked) < 2]  # the other rank has room for the first only

    monkeypatch.setattr(Workers, "gather", gather)
    monkeypatch.setattr(Trainer, "train", lambda _: {})
    run_dir = train(tmp_path, AUTO)
    assert all(asked)
    assert max_tokens(run_dir) == 256


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "true", "null", "most", "'512'", "[512]"])
def test_other_words_and_numbers_are_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batching.max_tokens=.*: must be a whole number greater than 0, or auto"):
        train(tmp_path, f"batching.max_tokens={value}")


def test_a_model_in_parts_needs_a_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batching.max_tokens=auto: distributed=fsdp cannot try .*; give a number"):
        train(tmp_path, AUTO, "distributed=fsdp", "distributed.nproc_per_node=2")
