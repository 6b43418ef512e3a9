"""The root puppet takes over the memory that was laid out ahead for it: nobody else has any of it."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from harness.events import time_limit_s
from harness.skips import missing
from torpor.base.errors import TargetGoneError
from torpor.engine.options import RestoreOptions
from torpor.engine.restore import forking
from torpor.engine.restore.ahead import Ahead
from torpor.engine.restore.session import RestoreSession
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.pagemap import PE_PARENT, PageRun
from torpor.images.pages import Piece, StoreSink
from torpor.images.store import load_one, store_one
from torpor.images.stores.memory import MemStore
from torpor.kernel import vm
from torpor.kernel.arch import nr
from torpor.kernel.procfs.status import read_status
from torpor.kernel.uapi.mman import MAP_ANONYMOUS, MAP_PRIVATE
from torpor.kernel.uapi.sched import CLONE_VM
from torpor.objects.memory.areas import ANON_PRIVATE, AREA_REGULAR
from torpor.objects.memory.contents import copy
from torpor.objects.ns import timens
from torpor.tracee import puppet
from torpor.tracee.batch import Batch
from torpor.tracee.remote import Runner, kill_and_reap
from torpor.tracee.thread import WALL
from unit.engine.restore.making import Member, read, stored

pytestmark = pytest.mark.root
_START, _N_PAGES = 0x7A0000000000, 700
_CONTENT = b"".join(bytes([1 + at % 255]) * vm.PAGE_SIZE for at in range(_N_PAGES))


def _read(pieces: Sequence[Piece], into: memoryview) -> None:
    into[:] = b"".join(_CONTENT[start - _START : start - _START + length] for start, length in pieces)


@pytest.fixture
def store() -> MemStore:
    """Images of a process whose pid is free, with some memory."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    end = _START + len(_CONTENT)
    made = stored([Member(pid, vmas=[(_START, end)])])
    mm = load_one(made, kinds.MM, pid)
    mm.vmas[0].prot, mm.vmas[0].flags, mm.vmas[0].fd = 3, MAP_PRIVATE | MAP_ANONYMOUS, -1
    mm.vmas[0].status = ANON_PRIVATE | AREA_REGULAR
    store_one(made, kinds.MM.name, mm, pid)
    with StoreSink(made).open(kinds.PAGEMAP, pid) as stream:
        copy([(_START, end)], _read, stream)
    return made


@pytest.fixture
def session(store: MemStore) -> Iterator[RestoreSession]:
    made = read(store)
    yield made
    kill_and_reap([runner.thread for runner in made.live])
    if made.guardian is not None:
        made.guardian.bury()
    made.channel.close()


def _bear(session: RestoreSession, *, sibling: bool = False) -> None:
    with closing(Ahead(session.root.ns_pid, sibling=sibling)) as ahead:
        ahead.take(session.store)
        parked = ahead.parked(session.root.ns_pid, ())
        assert parked is not None
        session.context.parked, session.area = parked, parked.area[0]
        session.options = RestoreOptions(ahead=ahead)
        forking.make_root(session)
    parked.bring(session.root.runner)


def test_the_root_has_it_and_nobody_else(session: RestoreSession, monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[int] = []
    clone = puppet.clone

    def told(parent: Runner, **words: Any) -> Runner:
        flags.append(words["flags"])
        return clone(parent, **words)

    monkeypatch.setattr(puppet, "clone", told)
    _bear(session)
    assert len(flags) == 1 and flags[0] & CLONE_VM, "no page tables are copied"
    root = session.root.pid
    assert read_status(root).ppid == os.getpid() and os.listdir(f"/proc/{root}/fd") == [str(session.channel.far_number)]
    assert vm.read(root, _START, len(_CONTENT)) == _CONTENT
    with open(f"/proc/{root}/smaps_rollup", encoding="ascii") as stream:
        sizes = {line.split()[0]: int(line.split()[1]) for line in list(stream)[1:]}
    assert sizes["Private_Dirty:"] * 1024 > len(_CONTENT) and sizes["Shared_Dirty:"] == 0
    assert session.guardian is not None


def test_it_is_there_when_whoever_held_it_has_ended(session: RestoreSession) -> None:
    _bear(session)
    assert session.guardian is not None
    session.guardian.bury()
    assert vm.read(session.root.pid, _START, len(_CONTENT)) == _CONTENT


def test_it_comes_into_a_time_namespace(session: RestoreSession) -> None:
    """Whoever is cloned with CLONE_VM is born into none."""
    if not os.path.exists("/proc/self/timens_offsets"):
        missing("time namespaces (CONFIG_TIME_NS, Linux 5.6)")
    entry = m.timens_entry()
    entry.monotonic.tv_sec, entry.monotonic.tv_nsec = 10**6, 0
    entry.boottime.tv_sec, entry.boottime.tv_nsec = 10**6, 0
    store_one(session.store, "TIMENS", entry, timens.OUTER)
    session.new_time = True
    _bear(session)
    root = session.root.pid
    place = f"/proc/{root}/ns/time"
    assert os.path.samefile(place, f"{place}_for_children") and not os.path.samefile(place, "/proc/self/ns/time")
    batch = Batch()
    shown = batch.out(16)
    batch.call(nr.clock_gettime, time.CLOCK_MONOTONIC, shown)
    session.root.runner.run(batch)
    assert 0 <= int.from_bytes(shown.bytes()[:8], "little") - 10**6 < time_limit_s(60)


@pytest.mark.parametrize("victim", ["root", "stub"])
def test_who_dies_between_the_birth_and_the_end_of_the_stub(
    victim: str, session: RestoreSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share an address space for a moment; the memory is the root's, whatever becomes of the other."""
    clone = puppet.clone
    born: list[int] = []

    def killed(parent: Runner, **words: Any) -> Runner:
        made = clone(parent, **words)
        born.extend((parent.tid, made.tid))
        os.kill(made.tid if victim == "root" else parent.tid, signal.SIGKILL)
        return made

    monkeypatch.setattr(puppet, "clone", killed)
    if victim == "root":
        with pytest.raises((TargetGoneError, ProcessLookupError)):
            _bear(session)
    else:
        _bear(session)
        assert vm.read(session.root.pid, _START, len(_CONTENT)) == _CONTENT
    kill_and_reap([session.live.pop().thread])
    assert born and not any(os.path.exists(f"/proc/{pid}") for pid in born)


def _have_child(run: Callable[[], None]) -> None:
    """*run* by a child of ours, whose siblings are ours too."""
    child = os.fork()
    if not child:
        try:
            run()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_it_may_be_our_sibling_as_the_stub_was(session: RestoreSession) -> None:
    """As container runtimes want it: they are its parent; the guardian is ours, who wait for it."""
    parent = os.getpid()

    def bear() -> None:
        _bear(session, sibling=True)
        root = session.root.pid
        assert read_status(root).ppid == parent and vm.read(root, _START, len(_CONTENT)) == _CONTENT
        assert len(_children(os.getpid())) == 1 and session.guardian is not None
        session.guardian.watch([])
        session.guardian.dismiss()
        session.guardian.bury()
        assert not _children(os.getpid())
        kill_and_reap([session.live.pop().thread])

    before = _children(parent)
    _have_child(bear)
    # The stub, and the root, which were not to tell their parent (exit signal 0).
    assert len(_children(parent) - before) == 2
    for pid in _children(parent) - before:
        assert os.waitid(os.P_PID, int(pid), os.WEXITED | WALL) is not None
    assert _children(parent) == before


def _children(pid: int) -> set[str]:
    return {*Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_where_it_is_is_known_in_few_words(session: RestoreSession) -> None:
    """Whichever round each page has come with: the last restore goes through that while its tree is stopped."""
    ident, end = session.root.ns_pid, _START + len(_CONTENT)
    store = cast(MemStore, session.store)
    with closing(Ahead(ident)) as ahead:
        ahead.take(store)
        for first in (0, 1):
            store = MemStore(store)
            for name in (kinds.MM.file_name(ident), kinds.INVENTORY.file_name()):
                store.images[name] = cast(MemStore, session.store).images[name]
            with StoreSink(store).open(kinds.PAGEMAP, ident) as stream:
                at = range(_START, end, vm.PAGE_SIZE)
                written = [(start, start + vm.PAGE_SIZE) for start in at[first::2]]
                others = [PageRun(start, 1, PE_PARENT) for start in at[1 - first :: 2]]
                copy(written, _read, stream, others)
            ahead.take(store)
        parked = ahead.parked(ident, ())
        assert parked is not None and parked.there == [(_START, end, 0)]


def test_what_is_not_taken_over_ends(session: RestoreSession) -> None:
    before = _children(os.getpid())
    with closing(Ahead(session.root.ns_pid)) as ahead:
        ahead.take(session.store)
        made = _children(os.getpid()) - before
        assert len(made) == 2
    assert not made & _children(os.getpid())
