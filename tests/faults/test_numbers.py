"""Leaps of the loss and memory that runs out, in whole runs: what becomes of the weights, and how the run ends."""

import hashlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import NumericsError
from app.runtime import faults
from app.runtime.numerics import MAX_ROLLBACKS
from app.trainer import Trainer
from tests.faults.victims import Victim, newest, wait_for
from tests.runs import train, write_corpus

RUN = ["batching.max_tokens=200", "trainer.try_longest_batch=false", "trainer.max_update=75"]
RUN += ["trainer.validate_interval=0", "checkpoint.save_interval_updates=20", "trainer.log_interval=1000"]
Ask = Callable[[str], None]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Sets FAULT for runs in this process."""

    def asking(fault: str) -> None:
        monkeypatch.setenv("FAULT", fault)
        faults.times.clear()
        faults.asked.cache_clear()

    yield asking
    faults.asked.cache_clear()


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with the digest of all weights before each batch that a run learns from."""
    seen: list[str] = []
    train_step = Trainer.train_step

    def noted(trainer: Trainer, *batch: Any) -> Any:
        held = hashlib.sha256()
        for parameter in trainer.model.parameters():
            held.update(parameter.detach().numpy().tobytes())
        seen.append(held.hexdigest())
        return train_step(trainer, *batch)

    monkeypatch.setattr(Trainer, "train_step", noted)
    return seen


@pytest.mark.fault("F15")
@pytest.mark.parametrize(("policy", "stands_at"), [("log", 70), ("skip", 69), ("rollback", 60)])
def test_a_leap_is_seen_at_once(
    policy: str, stands_at: int, ask: Ask, weights: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After the batch of update 70, whose loss is 10,000 times too large, weights stand as after an earlier update."""
    ask("spike:forward@70")
    run_dir = train(tmp_path, *RUN, f"trainer.on_loss_spike={policy}")
    assert caplog.text.count("the loss leaps to") == 1
    assert "update 70: the loss leaps to" in caplog.text
    assert weights.index(weights[70]) == stands_at
    assert newest(run_dir).num_updates == 75
    assert len(weights) == 75 + 70 - stands_at


@pytest.mark.fault("F15")
def test_a_loss_that_never_comes_down_again_ends_the_run(
    ask: Ask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is made update 70 leaps: going back to update 60 would go on for ever."""
    ask("spike:loss@70")
    with pytest.raises(NumericsError, match=r"update 70: .* never got past update 70; lower optimizer.lr") as hopeless:
        train(tmp_path, *RUN, "trainer.on_loss_spike=rollback")
    assert hopeless.value.exit_code == 6
    assert caplog.text.count("going back to the last checkpoint") == MAX_ROLLBACKS
    assert newest(tmp_path / "run").num_updates == 60


LARGE = ["batching.max_tokens=1000000", "batching.prefetch=0", "trainer.try_longest_batch=false"]
LARGE += ["model.encoder_ffn_embed_dim=2048", "model.decoder_ffn_embed_dim=2048", "model.dropout=0"]
LARGE += ["trainer.max_update=2", "trainer.validate_interval_updates=0", "trainer.log_interval=1"]
SHORT_OF_MEMORY = 1150 * 2**20  # bytes that an update may take; it takes about 1,350 * 2**20, and a half of it 780


@pytest.mark.fault("F16")
def test_memory_that_really_ends(tmp_path: Path) -> None:
    """The operating system refuses the process more address space: each update is made by halves."""
    write_corpus(tmp_path / "corpus", sizes=(3000, 10, 10))
    victim = Victim(tmp_path / "victim", *LARGE)
    process = victim.start("slow:batch@1")
    assert wait_for(process, "parameters on")
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SHORT_OF_MEMORY
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("sentences does not fit into memory") == 2
    assert err.count("trying its halves") == 2
    assert newest(victim.run_dir).num_updates == 2
