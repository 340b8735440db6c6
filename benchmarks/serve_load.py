"""`python -m benchmarks.serve_load checkpoint=outputs/RUN input=FILE`: many clients at once against `app.serve`.

A server is started on this machine's loopback address; each client sends one line of the file at a time, the next one
as soon as the last is answered. One JSON object goes to standard output and to outputs/bench/serve.jsonl: answers a
second, latency in milliseconds (median, p95, largest), errors, and the server's memory before, after each quarter of
the time, and at the end, so that growth shows.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PORT = 8765
URL = f"http://127.0.0.1:{PORT}"


def post(line: str) -> float:
    """Seconds until the answer; raises OSError where there is none."""
    body = json.dumps({"lines": [line], "nbest": 5}).encode()
    request = urllib.request.Request(f"{URL}/translate", body, {"Content-Type": "application/json"})
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as response:
        json.load(response)
    return time.perf_counter() - start


def resident(pid: int) -> int:
    """MiB of memory that the process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


async def client(
    number: int, lines: list[str], until: float, pool: ThreadPoolExecutor
) -> tuple[list[float], Counter[str]]:
    """The latencies of one client's requests, and what became of those that had no answer."""
    latencies: list[float] = []
    errors, loop = Counter[str](), asyncio.get_running_loop()
    while time.monotonic() < until:
        line = lines[(number * 31 + len(latencies)) % len(lines)]
        try:
            latencies.append(await loop.run_in_executor(pool, post, line))
        except OSError as error:
            errors[str(error)] += 1
    return latencies, errors


async def growth(pid: int, seconds: float, parts: int) -> list[int]:
    """MiB that the process holds now and after each of so many parts of the time."""
    found = [resident(pid)]
    for _ in range(parts):
        await asyncio.sleep(seconds / parts)
        found.append(resident(pid))
    return found


async def load(clients: int, seconds: float, lines: list[str], pid: int) -> tuple[list[float], Counter[str], list[int]]:
    """Latencies, rising; what became of requests without an answer; memory."""
    until = time.monotonic() + seconds
    memory = asyncio.create_task(growth(pid, seconds, 4))
    with ThreadPoolExecutor(clients) as pool:
        results = await asyncio.gather(*(client(number, lines, until, pool) for number in range(clients)))
    latencies = sorted(latency for each, _ in results for latency in each)
    return latencies, sum((errors for _, errors in results), Counter()), await memory


def wait_for_health(server: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        if server.poll() is not None:
            sys.exit("the server ended; see its message above")
        try:
            urllib.request.urlopen(f"{URL}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not start within a minute")


def measured(clients: int, seconds: float, lines: list[str], pid: int) -> dict[str, Any]:
    post(lines[0])
    latencies, errors, memory = asyncio.run(load(clients, seconds, lines, pid))
    return {
        "clients": clients,
        "seconds": seconds,
        "answers": len(latencies),
        "answers/s": round(len(latencies) / seconds, 1),
        "errors": errors,
        "median ms": round(1000 * statistics.median(latencies)),
        "p95 ms": round(1000 * latencies[int(0.95 * len(latencies))]),
        "max ms": round(1000 * latencies[-1]),
        "MiB": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="what app.serve is given; and input=FILE, lines to send")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_intermixed_args()
    files = [text.removeprefix("input=") for text in args.overrides if text.startswith("input=")]
    if len(files) != 1:
        parser.error("give input=FILE once")
    lines = [line for line in Path(files[0]).read_text(encoding="utf-8").splitlines() if line.strip()]
    overrides = [text for text in args.overrides if not text.startswith("input=")]
    server = subprocess.Popen([sys.executable, "-m", "app.serve", f"port={PORT}", *overrides])
    try:
        wait_for_health(server)
        row = measured(args.clients, args.seconds, lines, server.pid)
    finally:
        server.terminate()
        server.wait()
    path = Path("outputs/bench/serve.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
