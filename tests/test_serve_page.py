"""The page in a real browser: `make serve-test`. Needs chromium (`apt-get install chromium`)."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import train

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server with a small model, in a process of its own."""
    run_dir = train(tmp_path, "trainer.max_update=150", "trainer.validate_interval=0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = [f"checkpoint={run_dir}", f"port={port}", "num_threads=1", "search.max_len_b=12"]
    process = subprocess.Popen([sys.executable, "-m", "app.serve", *given])
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_what_is_typed_is_translated_with_its_details(url: str, tmp_path: Path) -> None:
    body = json.dumps({"lines": ["ba be gu"]}).encode()
    request = urllib.request.Request(f"{url}/translate", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        (((expected, *_),),) = (json.load(response)["translations"],)
    chromium = shutil.which("chromium")
    assert chromium, "needs chromium: apt-get install chromium"
    picture = tmp_path / "page.png"
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=8000", "--window-size=1000,1000", f"--screenshot={picture}", "--dump-dom"]
    done = subprocess.run(
        [*command, f"{url}/#text=ba%20be%20gu"], capture_output=True, text=True, timeout=120, check=True
    )
    dom = done.stdout
    assert f"<div>{expected['text']}</div>" in dom
    assert dom.count("<li>") == 5
    assert dom.count('class="piece"') == len(expected["pieces"])
    assert dom.count("<tr>") == len(expected["pieces"]) + 1  # the source's pieces, and a row for each of the output
    assert picture.stat().st_size > 10_000
    if kept := os.environ.get("SCREENSHOT"):
        shutil.copy2(picture, kept)
