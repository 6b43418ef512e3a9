"""`criu cpuinfo dump`: nothing of an earlier image is lost."""

import errno
import os
from pathlib import Path

import pytest

from torpor.cli.criu import cpuinfo
from torpor.cli.criu.parse import parse
from torpor.images.errors import StoreError


def test_an_earlier_image_stays_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if str(tmp_path) in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    options, _ = parse(["-D", str(tmp_path)])
    cpuinfo.run("dump", options)
    cpuinfo.run("check", options)
    before = (tmp_path / "cpuinfo.img").read_bytes()
    with monkeypatch.context() as patched, pytest.raises(StoreError, match="No space"):
        patched.setattr(os, "write", write)
        cpuinfo.run("dump", options)
    assert (tmp_path / "cpuinfo.img").read_bytes() == before and os.listdir(tmp_path) == ["cpuinfo.img"]
    cpuinfo.run("dump", options)
    cpuinfo.run("check", options)
