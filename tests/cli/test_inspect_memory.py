"""`torpor inspect --memory`: which memory a checkpoint has, and where each page of it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.events import time_limit_s
from torpor.images import kinds
from torpor.images.pagemap import PAGE_BYTES, PE_LAZY, PE_PARENT, PE_PRESENT, PageRun, store_pagemap
from torpor.images.stores.directory import DirStore
from unit.containers import making

PAGE = making.ARG_START & ~0xFFF


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One process with pages of each source, and a segment."""
    for name, data in making.images().items():
        (tmp_path / name).write_bytes(data)
    with DirStore(tmp_path, "w") as store:
        flags = [(PE_PRESENT, 2), (PE_PARENT, 3), (0, 1), (PE_LAZY, 4)]
        at, runs = PAGE, []
        for each, n_pages in flags:
            runs.append(PageRun(at, n_pages, each))
            at += n_pages * PAGE_BYTES
        store_pagemap(store, 1, 1, runs)
        store_pagemap(store, 0x80000001, 2, [PageRun(0, 5, PE_PARENT)], kinds.SHMEM_PAGEMAP)
    return tmp_path


def inspect(*words: str | Path) -> str:
    line = [sys.executable, "-m", "torpor.cli.torpor", "inspect", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=time_limit_s(120), check=True).stdout


def test_each_run_and_its_source(images: Path) -> None:
    lines = [line.strip() for line in inspect("--memory", images).splitlines()]
    at = lines.index("MEMORY")
    assert lines[at + 1] == "1: 8.0 KiB here, 16.0 KiB lazy, 12.0 KiB parent, 4.0 KiB zero"
    assert [line.split()[-1] for line in lines[at + 2 : at + 6]] == ["here", "parent", "zero", "lazy"]
    assert lines[at + 2].startswith(f"{PAGE:#x}-{PAGE + 2 * PAGE_BYTES:#x} ")
    assert lines[at + 6] == "segment 0x80000001: 20.0 KiB parent"
    assert "MEMORY" not in inspect(images)


def test_as_json(images: Path) -> None:
    told = json.loads(inspect("--json", "--memory", images))["memory"]
    assert [(each["number"], each["is_segment"]) for each in told] == [(1, False), (0x80000001, True)]
    assert told[1]["runs"] == [{"start": 0, "end": 5 * PAGE_BYTES, "source": "parent"}]
    assert "memory" not in json.loads(inspect("--json", images))
