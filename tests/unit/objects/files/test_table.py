"""Which kinds a file is tried against, by its link and its device."""

import os
import stat
from typing import cast

import pytest

from torpor.objects.files import table, tty
from torpor.objects.files.model import OpenFile
from torpor.objects.model import DumpProcess


def _device(major: int, minor: int) -> os.stat_result:
    return os.stat_result([stat.S_IFCHR | 0o666, *[0] * 9], {"st_rdev": os.makedev(major, minor)})


def test_every_terminal_is_tried_against_the_kind_of_terminals() -> None:
    """The table tells by majors which kind is worth loading; the kind itself knows the rest."""
    for major in range(256):
        for minor in (0, 1, 2, 63, 64, 255):
            info = _device(major, minor)
            file = OpenFile(cast("DumpProcess", None), 0, -1, "/dev/x", info, ["flags:\t02"])
            asked = [kind.name for kind in table.kinds_alike("/dev/x", info)]
            assert not tty.matches(file) or tty.KIND.name in asked, (major, minor)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/urandom"])
def test_what_nearly_every_program_has_open_loads_no_other_kind(path: str) -> None:
    info = os.stat(path)
    rows = [row.module for row in table.KINDS if row.looks_alike(*table.look_of(path, info))]
    assert rows == ["regular", "refused"]


def test_a_tun_device_may_be_one_under_any_name() -> None:
    rows = [row.module for row in table.KINDS if row.looks_alike(*table.look_of("/elsewhere", _device(10, 200)))]
    assert "tunfile" in rows
