"""fairseq's binarised files are read and written byte for byte."""

from typing import Any

import numpy as np
import pytest

from app.data.indexed import HEADER, MAGIC, TYPES, IndexedStore, id_code, write_indexed
from tests.golden.cases import GOLDEN_DIR, claimed

NAMES = {"uint16": 8, "uint32": 9, "int64": 5}


@pytest.mark.parametrize("case", claimed("data", "mmap_indexed_dataset"))
class TestIndexedStore:
    def test_items(self, case: Any) -> None:
        for result in case.spec["results"].values():
            index = next(GOLDEN_DIR / "data" / name for name in result["files"] if name.endswith(".idx"))
            store = IndexedStore(index, 1 + max(max(item) for item in result["items"]))
            assert [store[i].tolist() for i in range(len(store))] == result["items"]
            assert store.lengths.tolist() == result["sizes"]

    def test_bytes(self, case: Any, tmp_path: Any) -> None:
        for name, result in case.spec["results"].items():
            if result["dtype_code"] not in NAMES.values():  # of older versions, which is read and not written
                continue
            size = next(int(size) for size, kind in case.spec["best_fitting_int_dtype"].items() if kind == name)
            items = result["items"]
            with write_indexed(tmp_path / "x.idx", size) as add:
                add(np.concatenate([np.array(item) for item in items]), np.array([len(item) for item in items]))
            for file in result["files"]:
                written = (tmp_path / f"x.{file.rpartition('.')[2]}").read_bytes()
                assert written == (GOLDEN_DIR / "data" / file).read_bytes()
            assert HEADER.unpack((tmp_path / "x.idx").read_bytes()[: HEADER.size])[:3] == (MAGIC, 1, NAMES[name])

    def test_types(self, case: Any) -> None:
        for size, name in case.spec["best_fitting_int_dtype"].items():
            if size != "None":
                assert np.dtype(TYPES[id_code(int(size))]).name == name
