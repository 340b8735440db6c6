"""Reads the file that an offline W&B run leaves: LevelDB's log format around W&B's own protobuf records."""

import json
import struct
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, struct.Struct("<IHB")  # crc, length, type
FULL, LAST = 1, 4


def records(path: Path) -> list[Record]:
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    found, parts, at = [], b"", 7
    while at + HEADER.size <= len(data):
        if BLOCK - at % BLOCK < HEADER.size:  # a block's end that is too short for a header is padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        parts += data[at + HEADER.size : at + HEADER.size + length]
        at += HEADER.size + length
        if kind in (FULL, LAST):
            found.append(Record.FromString(parts))
            parts = b""
    return found


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, an item a step."""
    return [items(record.history.item) for record in records(path) if record.HasField("history")]


def config(path: Path) -> dict[str, Any]:
    return items(next(record.run.config.update for record in records(path) if record.HasField("run")))


def items(updates: Any) -> dict[str, Any]:
    return {update.key or ".".join(update.nested_key): json.loads(update.value_json) for update in updates}
