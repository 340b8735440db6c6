"""The page, the CSV and the table of a sweep; the page in a real browser."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.report import as_table, main, report
from app.reporting.runs import read_runs
from tests.reporting.made_up import write_run, write_sweep


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_the_page_stands_alone_and_holds_every_run(tmp_path: Path) -> None:
    write_sweep(tmp_path, 6)
    runs = report([tmp_path], tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"(?:src|href)\s*=|https?://(?!www\.w3\.org)", text)  # needs no other file and no network
    assert "{{" not in text
    content = data_of(tmp_path / "report.html")
    assert [run["name"] for run in content["runs"]] == [run.name for run in runs]
    assert [run["best"] for run in content["runs"]] == sorted(run["best"] for run in content["runs"])
    assert content["runs"][0]["settings"]["optimizer.lr"] == 3e-4


def test_names_cannot_leave_their_place_in_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path, "1e-4", 1)
    run.rename(tmp_path / "<b>{{script}}")
    config = tmp_path / "<b>{{script}}" / "config.yaml"
    config.write_text(config.read_text() + 'note: "</script><script>alert(1)</script>"\n')
    write_run(tmp_path, "1e-4", 2)
    report([tmp_path], tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in text
    content = data_of(tmp_path / "report.html")
    assert {run["name"] for run in content["runs"]} >= {"<b>{{script}}"}
    assert any(run["settings"]["note"] == "</script><script>alert(1)</script>" for run in content["runs"])


def test_the_csv_has_a_line_a_run(tmp_path: Path) -> None:
    runs = report([write_sweep(tmp_path, 5)], tmp_path)
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [run.name for run in runs]
    assert [float(row["best"]) for row in rows] == [run.best for run in runs]
    assert rows[0]["optimizer.lr"] == "0.0003"
    assert float(rows[0]["bleu"]) == runs[0].metrics["bleu"]


def test_the_table_shows_the_best_and_counts_the_rest(tmp_path: Path) -> None:
    table = as_table(report([write_sweep(tmp_path, 5)], tmp_path), most=2)
    assert table.row_count == 2
    assert table.caption == "and 3 more: report.csv has all"


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [(["nowhere"], "nowhere: no runs there", 3), (["runs", "--out", "file/x"], "say with --out where to write", 5)],
)
def test_mistakes(
    arguments: list[str], words: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write_run(tmp_path / "runs", "1e-4", 1)
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == code
    assert words in capsys.readouterr().err


PROBE = """<script>addEventListener("load", () => {
  const rows = () => document.querySelectorAll("#table tbody tr").length;
  const lines = (picture) => document.querySelectorAll(`${picture} polyline`).length;
  const seen = { milliseconds: performance.now(), rows: rows(), lines: lines("#curves"), parallel: lines("#parallel") };
  document.querySelectorAll("#table th button")[2].click();
  seen.first = document.querySelector("#table tbody tr td").textContent;
  const filter = document.getElementById("filter");
  filter.value = "lr=0.001 finished";
  filter.dispatchEvent(new Event("input"));
  seen.filtered = rows();
  document.title = JSON.stringify(seen);
});</script></html>"""


@pytest.mark.slow
def test_two_hundred_runs_in_a_browser(tmp_path: Path) -> None:
    """The page of 200 runs opens in under a second, sorts and filters. Needs Chromium (`apt-get install chromium`)."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    runs = report([write_sweep(tmp_path, 200)], tmp_path)
    page = tmp_path / "report.html"
    page.write_text(page.read_text().replace("</html>", PROBE))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    seen = json.loads(found[1])
    assert (seen["rows"], seen["lines"], seen["parallel"]) == (200, 200, 200)
    assert seen["first"] == max(runs, key=lambda run: run.best or 0).name  # sorted the other way by one click
    assert seen["filtered"] == sum(run.settings["optimizer.lr"] == 1e-3 for run in read_runs([tmp_path]))
    assert seen["milliseconds"] < 1000
