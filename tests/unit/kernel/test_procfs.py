"""Parsers of /proc, on this process and on odd texts."""

import ctypes
import mmap
import os
import signal
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from torpor.base.ids import Pid
from torpor.base.records import replace
from torpor.kernel.procfs import maps, task
from torpor.kernel.procfs.maps import makedev, parse_line, parse_smaps, read_maps
from torpor.kernel.procfs.small import iter_pieces
from torpor.kernel.procfs.stat import Stat, parse_stat, read_stat
from torpor.kernel.procfs.status import read_status
from torpor.kernel.procfs.task import read_fd_link


def test_a_line_with_spaces_in_the_name() -> None:
    vma = parse_line("7f00-8f00 rw-s 00001000 fe:00 77                         /tmp/a b (deleted)")
    assert (vma.start, vma.end, vma.prot, vma.shared) == (0x7F00, 0x8F00, 3, True)
    assert (vma.pgoff, vma.device, vma.inode) == (0x1000, makedev(0xFE, 0), 77)
    assert vma.name == "/tmp/a b (deleted)"


def test_smaps_gives_flags() -> None:
    text = "1000-2000 r-xp 00000000 00:00 0 \nSize:  4 kB\nVmFlags: rd ex mr \n3000-4000 ---p 00000000 00:00 0 [heap]\n"
    (first,) = parse_smaps(text)
    assert first.flags == {"rd", "ex", "mr"}


def test_smaps_gives_protection_keys() -> None:
    keys = (0, 3, 0)
    text = "".join(
        f"{n}000-{n}800 rw-p 00000000 00:00 0 \nSize:  4 kB\nProtectionKey:         {key}\nVmFlags: rd wr \n"
        for n, key in enumerate(keys, 1)
    )
    assert [(vma.start, vma.protection_key) for vma in parse_smaps(text)] == [(0x1000, 0), (0x2000, 3), (0x3000, 0)]


@pytest.mark.parametrize("n_records", [0, 1, 3, 9000])
def test_a_large_file_comes_in_pieces_of_whole_records(n_records: int, tmp_path: Path) -> None:
    path = tmp_path / "smaps"
    whole = "".join(f"{at:x}-{at + 1:x} name \u00e4{'x' * (at % 50)}\nVmFlags: rd\n" for at in range(n_records))
    path.write_bytes(whole.encode() + b"\xff")
    *pieces, last = iter_pieces(str(path), b"VmFlags:")
    assert "".join((*pieces, last)) == whole + "\udcff"
    assert (len(pieces) > 1) is (n_records == 9000) and all(each.endswith("\nVmFlags: rd\n") for each in pieces)


def test_thousands_of_mappings_are_all_found() -> None:
    """Some of our own may come in between the looks, for what these take."""
    areas = [mmap.mmap(-1, 4096, mmap.MAP_PRIVATE, prot) for prot in (mmap.PROT_READ, mmap.PROT_WRITE) * 500]
    found = {(vma.start, vma.end): vma for vma in maps.read_smaps(Pid(os.getpid()))}
    plain = {(vma.start, vma.end): vma for vma in read_maps(Pid(os.getpid()))}
    flags = {(start, end): each for start, end, each in maps.read_flags(Pid(os.getpid()))}
    same = found.keys() & plain.keys() & flags.keys()
    assert len(same) > len(areas) and list(found) == sorted(found)
    assert all(found[key] == replace(plain[key], flags=flags[key]) for key in same)


def test_own_mappings_hold_an_address_of_ours() -> None:
    with mmap.mmap(-1, 8192) as area:
        address = ctypes.addressof((ctypes.c_char * 0).from_buffer(area))
        assert any(vma.start <= address < vma.end for vma in read_maps(Pid(os.getpid())))


def test_a_comm_with_parentheses() -> None:
    text = "42 (a) R (b) S 1 2 3 0 -1 4194304" + " 0" * 50
    stat = parse_stat(text)
    assert (stat.pid, stat.comm, stat.state, stat.ppid, stat.pgrp, stat.session) == (42, "a) R (b", "S", 1, 2, 3)


def test_own_stat_and_status() -> None:
    stat, status = read_stat(Pid(os.getpid())), read_status(Pid(os.getpid()))
    assert stat.pid == os.getpid() == status.tgid
    assert stat.ppid == os.getppid() == status.ppid
    assert stat.session == os.getsid(0)
    assert status.uids == (*os.getresuid(), os.geteuid())
    assert stat.start_code < stat.end_code


def test_mappings_are_told_alike() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None and cat.stdout is not None
        cat.stdin.write(b"loaded\n")
        cat.stdin.flush()
        cat.stdout.readline()
        pid = Pid(cat.pid)
        known = maps.read_smaps(pid)
        assert maps.read_flags(pid) == [(vma.start, vma.end, vma.flags) for vma in known]
        assert maps.count_maps(pid) == len(known) == len(maps.read_maps(pid))


def test_flags_are_those_that_mappings_had_earlier() -> None:
    text = "1000-3000 rw-p 00000000 00:00 0 [heap]\n8000-9000 r--p 00000000 08:01 7 /lib\n"
    earlier = maps.parse_maps(text)
    for vma in earlier:
        vma.flags = frozenset((vma.name,))
    grown = maps.parse_maps(text.replace("1000-3000", "1000-5000"))
    assert maps.take_flags(grown, earlier)
    assert [vma.flags for vma in grown] == [{"[heap]"}, {"/lib"}]
    assert not maps.take_flags(maps.parse_maps(text.replace("r--p", "r-xp")), earlier)
    assert not maps.take_flags(maps.parse_maps(text + "a000-b000 rw-p 00000000 00:00 0\n"), earlier)


def test_who_takes_a_kill_between_two_looks_is_dying(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as sent until it is taken, and as a flag from then on: whoever looks in that order misses nothing."""
    stat = read_stat(Pid(os.getpid()))
    killed = 1 << signal.SIGKILL - 1
    looks: list[str] = []

    def look_at_status(_: Pid) -> SimpleNamespace:
        looks.append("status")
        return SimpleNamespace(pending=0 if len(looks) > 1 else killed, shared_pending=0)

    def look_at_stat(_: Pid) -> Stat:
        looks.append("stat")
        return replace(stat, flags=0x400 if len(looks) > 1 else 0)

    monkeypatch.setattr(task, "read_status", look_at_status)
    monkeypatch.setattr(task, "read_stat", look_at_stat)
    assert task.is_dying(Pid(1))
    # It takes it just before the first look.
    looks = ["before"]
    assert task.is_dying(Pid(1))


def test_who_runs_is_not_dying() -> None:
    assert not task.is_dying(Pid(os.getpid()))


def test_links_of_pipes_and_sockets_are_told_by_their_inodes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader, writer = os.pipe()
    files = [
        reader,
        writer,
        os.open(f"/proc/self/fd/{reader}", os.O_PATH),
        os.open(tmp_path / "fifo", os.O_RDWR),
        os.open("/dev/null", os.O_RDONLY),
        socket.socket(socket.AF_UNIX).detach(),
        socket.socket(socket.AF_INET).detach(),
    ]
    try:
        for fd in files:
            link = os.readlink(f"/proc/self/fd/{fd}")
            assert read_fd_link(Pid(os.getpid()), fd, os.fstat(fd)) == link
    finally:
        for fd in files:
            os.close(fd)
