"""A run's configuration, read back from its directory."""

from pathlib import Path

from app.run_config import stored


def test_a_run_from_before_there_were_windows_has_none(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\nbatching: {max_tokens: 40}\n")
    assert stored(tmp_path / "config.yaml") == {"seed": 1, "batching": {"max_tokens": 40, "window": 0}}
