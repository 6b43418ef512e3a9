"""What the source tells of what is to be moved, before anything is stopped, and what the destination thinks of it."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.base.errors import JobError, MigrationError, TorporError
from torpor.base.fds import OwnedFd, only_files
from torpor.base.ids import Pid
from torpor.engine import jobs
from torpor.engine.jobs.places import check_name
from torpor.images import kinds
from torpor.images.added import SUFFIX
from torpor.images.stores.memory import MemStore
from torpor.kernel.build_id import read_build_id
from torpor.kernel.procfs.maps import read_maps
from torpor.kernel.procfs.task import read_threads, read_tree
from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate.link import Message
from torpor.objects.arch import caps, cpu

PROCESS, JOB, CONTAINER = "process", "job", "container"
#: What a restore is told that its dump was told.
CARRIED = ("tcp_established", "tcp_close", "external_unix", "external_pipes", "link_remap", "file_locks")
_MAX_FILES, _MAX_PIDS, _MAX_WORDS, _MAX_CPU = 4096, 1 << 16, 4096, 1 << 16
#: What tells of a processor: the image, and what is added to it.
_CPU = (kinds.CPUINFO.file_name(), kinds.CPUINFO.file_name() + SUFFIX)


@dataclass(frozen=True, slots=True)
class File:
    """A file that is mapped or open: ``build_id`` in hexadecimal digits, "" for none."""

    path: str
    size: int
    build_id: str


@dataclass(frozen=True, slots=True)
class Offer:
    """``pids`` are those that must be free, ``processor`` the images that tell of ours, ``told`` what a restore is
    told, ``name`` that of a job.
    """

    kind: str
    name: str
    pids: tuple[int, ...]
    memory_bytes: int
    machine: str
    page_bytes: int
    processor: tuple[bytes, ...]
    files: tuple[File, ...]
    told: tuple[str, ...]

    def fields(self) -> dict[str, object]:
        """As a message has it."""
        return {
            "kind": self.kind, "name": self.name, "pids": list(self.pids), "memory": self.memory_bytes,
            "machine": self.machine, "page": self.page_bytes,
            "cpu": " ".join(base64.b64encode(part).decode() for part in self.processor),
            "files": [[file.path, file.size, file.build_id] for file in self.files], "told": list(self.told),
        }  # fmt: skip


def of(message: Message) -> Offer:
    """The offer that a message makes; MigrationError where it makes no sense."""
    kind = message.text("kind")
    if kind not in (PROCESS, JOB, CONTAINER):
        message.refuse("kind")
    pids = message.entries("pids", _MAX_PIDS)
    told = message.entries("told", len(CARRIED))
    if not all(type(pid) is int and 0 < pid < 1 << 22 for pid in pids) or not all(word in CARRIED for word in told):
        message.refuse("pids, told")
    try:
        processor = tuple(base64.b64decode(part, validate=True) for part in message.text("cpu").split(" "))
    except (ValueError, binascii.Error):
        message.refuse("cpu")
    if len(processor) > len(_CPU) or any(len(part) > _MAX_CPU for part in processor):
        message.refuse("cpu")
    return Offer(
        kind, message.text("name"), tuple(pid for pid in pids if isinstance(pid, int)), message.number("memory"),
        message.text("machine"), message.number("page"), processor, tuple(_files_of(message)),
        tuple(str(word) for word in told),
    )  # fmt: skip


def _files_of(message: Message) -> Iterator[File]:
    for entry in message.entries("files", _MAX_FILES):
        match entry:
            case [str(path), int(size), str(build_id)] if path.startswith("/") and "\0" not in path and size >= 0:
                yield File(path, size, build_id)
            case _:
                message.refuse("files")


# -- the source ----------------------------------------------------------------------------------------------------


def make(pid: int, name: str, told: Mapping[str, object], kind: str = "") -> Offer:
    """What is to be said of the tree below *pid*, a job if it has a *name*; a container if *kind* says so."""
    tree = read_tree(Pid(pid))
    threads = [int(tid) for each in tree for tid in _threads(each)]
    # A job has a pid namespace of its own, where all are free; a container its own files as well.
    pids = () if name else tuple(sorted(threads))[:_MAX_PIDS]
    store = MemStore()
    cpu.dump(store)
    return Offer(
        kind or (JOB if name else PROCESS), name, pids, _memory(tree), os.uname().machine, PAGE_SIZE,
        tuple(bytes(store.images[name]) for name in _CPU if name in store.images),
        tuple(_files(tree) if kind != CONTAINER else ()),
        tuple(word for word in CARRIED if told.get(word)),
    )  # fmt: skip


def _threads(pid: Pid) -> list[Pid]:
    try:
        return list(read_threads(pid))
    except OSError:
        return []


def _memory(tree: list[Pid]) -> int:
    total = 0
    for pid in tree:
        with suppress(OSError, ValueError), open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
            total += sum(int(line.split()[1]) << 10 for line in stream if line.startswith(("RssAnon:", "RssShmem:")))
    return total


def _files(tree: list[Pid]) -> Iterator[File]:
    """The files that the tree has mapped, as far as they are files of the host."""
    seen: set[str] = set()
    for pid in tree:
        with suppress(OSError):
            for vma in read_maps(pid):
                path = vma.name if vma.is_file else ""
                if path.startswith("/") and path not in seen and len(seen) < _MAX_FILES:
                    seen.add(path)
                    if found := _file(pid, path):
                        yield found


def _file(pid: Pid, path: str) -> File | None:
    """What lies there, if it is a regular file, and the host has the same one at the same place."""
    with suppress(OSError):
        inside, here = os.stat(f"/proc/{pid}/root{path}"), os.stat(path)
        if os.path.samestat(inside, here) and stat.S_ISREG(here.st_mode):
            return File(path, here.st_size, _build_id(path))
    return None


def _build_id(path: str) -> str:
    with suppress(OSError), OwnedFd(only_files(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        return read_build_id(fd.fileno()).hex()
    return ""


# -- the destination -----------------------------------------------------------------------------------------------


def problems(offer: Offer, name: str, room: Path) -> list[TorporError]:
    """What stands in the way of taking it here, as far as it is known before anything comes.

    *name* is what the job is to be called here; *room* is a directory for what of the images has to wait.
    """
    found: list[TorporError] = []
    here = os.uname().machine
    if offer.machine != here:
        return [MigrationError(f"this is {here}, and the processes are {offer.machine}'s")]
    if offer.page_bytes != PAGE_SIZE:
        return [MigrationError(f"pages have {PAGE_SIZE} bytes here, and {offer.page_bytes} there")]
    found += _of_processor(offer)
    if offer.kind == JOB:
        found += _of_name(name)
    if taken := [pid for pid in offer.pids if os.path.exists(f"/proc/{pid}")]:
        numbers = ", ".join(map(str, taken[:5]))
        found.append(
            MigrationError(
                f"pid {numbers} {'is' if len(taken) == 1 else 'are'} taken here",
                hint="a job (torpor run) brings a pid namespace of its own; or wait until it is free",
            )
        )
    found += _of_files(offer.files)
    found += _of_room(offer.memory_bytes, room)
    return found


def _of_processor(offer: Offer) -> Iterator[TorporError]:
    store = MemStore()
    store.images.update(zip(_CPU, map(bytearray, offer.processor), strict=False))
    try:
        cpu.check(store, caps.DEFAULT)
    except TorporError as error:
        yield error


def _of_name(name: str) -> Iterator[TorporError]:
    try:
        if (holder := jobs.locks.holder(check_name(name))) != "":
            yield JobError(f"{name} is being {holder} here", hint="wait until that is over")
            return
        job = jobs.find(name)
    except JobError as error:
        if "cannot name" in str(error):
            yield error
        return
    if job.status != jobs.ENDED:
        yield JobError(f"a job called {name} is {job.status} here", hint="--name calls the one that comes otherwise")


def _of_files(files: tuple[File, ...]) -> Iterator[TorporError]:
    missing, other = [], []
    for file in files:
        try:
            size = os.stat(file.path).st_size
        except OSError:
            missing.append(file.path)
            continue
        if file.build_id:
            if _build_id(file.path) != file.build_id:
                other.append(file.path)
        elif size != file.size:
            other.append(file.path)
    for paths, what in ((missing, "missing here"), (other, "another here")):
        if paths:
            more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
            yield MigrationError(
                f"{', '.join(paths[:3])}{more} {'is' if len(paths) == 1 else 'are'} {what}",
                hint="programs and libraries are not carried: install the same versions",
            )


def _of_room(n_bytes: int, room: Path) -> Iterator[TorporError]:
    about = os.statvfs(room)
    free = about.f_bavail * about.f_frsize
    if n_bytes > free:
        yield MigrationError(f"{room} has room for {free >> 20} MiB, and {n_bytes >> 20} MiB come")
    if 0 < (left := memory_left()) < n_bytes:
        yield MigrationError(f"there are {left >> 20} MiB of memory left here, and {n_bytes >> 20} MiB come")


def memory_left() -> int:
    """The bytes that programs may have here without others losing theirs; 0 where nobody tells."""
    with suppress(OSError, ValueError), open("/proc/meminfo", encoding="ascii") as stream:
        return next(int(line.split()[1]) << 10 for line in stream if line.startswith("MemAvailable:"))
    return 0
