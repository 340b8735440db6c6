"""The small parts that keep a run alive: signals, seeds, the lock, the number format."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from app.errors import LockedError
from app.runtime.lock import locked
from app.runtime.memory import keep_buffers
from app.runtime.precision import PreciseOptimizer, Precision, PrecisionConfig, has_fast_bf16
from app.runtime.seeds import seed_for, set_seed
from app.runtime.signals import StopSignals

CPU = torch.device("cpu")


class TestSignals:
    def test_the_first_is_noted(self) -> None:
        with StopSignals() as signals:
            assert signals.received is None
            os.kill(os.getpid(), signal.SIGUSR2)
            assert signals.received == signal.SIGUSR2
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL

    def test_what_was_there_before_is_called_on_request(self) -> None:
        seen: list[int] = []
        before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
        try:
            with StopSignals() as signals:
                os.kill(os.getpid(), signal.SIGUSR2)
                assert seen == []
                signals.pass_on(signal.SIGUSR2)
            assert seen == [signal.SIGUSR2]
        finally:
            signal.signal(signal.SIGUSR2, before)

    def test_another_one_changes_nothing(self) -> None:
        with StopSignals() as signals:
            for number in (signal.SIGUSR2, signal.SIGUSR2, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert signals.received == signal.SIGUSR2

    def test_the_second_ends_the_process(self) -> None:
        program = (
            "import os, signal\nfrom app.runtime.signals import StopSignals\n"
            "with StopSignals():\n    os.kill(os.getpid(), 15)\n    os.kill(os.getpid(), 15)\n    print('alive')"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 143
        assert done.stdout == ""


class TestSeeds:
    def test_a_place_has_its_own_draws(self) -> None:
        set_seed(1, 5, 0)
        first = torch.rand(3)
        torch.rand(100)
        set_seed(1, 5, 0)
        assert torch.equal(torch.rand(3), first)

    def test_places_differ(self) -> None:
        seeds = {seed_for(seed, update, batch) for seed in range(3) for update in range(50) for batch in range(3)}
        assert len(seeds) == 3 * 50 * 3


class TestLock:
    def test_another_process_is_named(self, tmp_path: Path) -> None:
        with locked(tmp_path / "run"), pytest.raises(LockedError, match=rf"process {os.getpid()} on ") as error:
            locked(tmp_path / "run").__enter__()
        assert error.value.exit_code == 9

    def test_who_only_looks_does_not_refuse_a_run(self, tmp_path: Path) -> None:
        """`app.report` holds the lock for the moment in which it finds out whether it is free."""
        (tmp_path / ".lock").touch()
        with (tmp_path / ".lock").open("rb") as looked_at:
            fcntl.flock(looked_at, fcntl.LOCK_SH)
            gone = threading.Timer(0.2, lambda: fcntl.flock(looked_at, fcntl.LOCK_UN))
            gone.start()
            with locked(tmp_path):
                gone.join()

    def test_it_is_free_again(self, tmp_path: Path) -> None:
        for _ in range(2):
            with locked(tmp_path / "run"):
                pass


class TestPrecision:
    def test_auto_follows_the_machine(self) -> None:
        expected = "bf16" if has_fast_bf16(CPU) else "fp32"
        assert Precision(PrecisionConfig("auto", 1.0, 1), CPU).name == expected

    @pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
    def test_products_run_in_it_and_weights_stay_fp32(self, name: str, dtype: torch.dtype) -> None:
        linear = torch.nn.Linear(2, 2)
        with Precision(PrecisionConfig(name, 1.0, 1), CPU).autocast():
            assert linear(torch.ones(1, 2)).dtype == dtype
        assert linear.weight.dtype == torch.float32

    def test_fp16_skips_an_overflow_and_halves_its_scale(self) -> None:
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = PreciseOptimizer(
            torch.optim.SGD([weight], lr=1.0), Precision(PrecisionConfig("fp16", 1024.0, 1000), CPU)
        )
        optimizer.backward((weight * float("inf")).sum())
        assert not torch.isfinite(optimizer.average_and_clip(1.0, 0.0))
        optimizer.skip()
        assert weight.tolist() == [1.0, 1.0]
        assert optimizer.state_dict()["scaler"]["scale"] == 512.0
        optimizer.backward(weight.sum())
        assert float(optimizer.average_and_clip(0.5, 0.0)) == pytest.approx(2**-0.5)
        optimizer.step()
        assert weight.tolist() == [0.5, 0.5]


def test_keeping_buffers_is_accepted_by_glibc() -> None:
    assert keep_buffers() == sys.platform.startswith("linux")
