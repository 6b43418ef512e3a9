"""Programs that have confined themselves for good: as confined after a restore, or refused by name."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

from harness import engine
from harness.flavours import workload_test
from harness.skips import missing
from harness.workload import Workload
from torpor.images import kinds
from torpor.images.store import load_one
from torpor.images.stores.directory import DirStore

_PR_GET_MDWE = 66


def _need_mdwe() -> None:
    if ctypes.CDLL(None).prctl(_PR_GET_MDWE, 0, 0, 0, 0) < 0:
        missing("PR_SET_MDWE in the kernel (6.3)")


test_no_code_of_what_was_writable = workload_test("confined", ["mdwe"], need=_need_mdwe)
test_no_code_of_what_was_writable_with_threads = workload_test("confined", ["mdwe", "thread"], need=_need_mdwe)
test_dispatched_calls = workload_test("confined", ["dispatch"])
test_dispatched_calls_of_code_in_their_midst = workload_test("confined", ["dispatch", "busy"])

_TO_CLONE = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
if sys.argv[1] == "mdwe":
    libc.prctl(65, 1, 0, 0, 0)
else:
    fd = libc.syscall(444, (ctypes.c_uint64 * 1)(1 << 11), 8, 0)
    libc.syscall(446, fd, 0)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def _confined_caller(how: str) -> list[str]:
    return [sys.executable, "-c", _TO_CLONE, how, *engine.command()]


@pytest.mark.root
@pytest.mark.parametrize("how", ["", "root", "thread", "thread root"])
def test_a_landlock_domain_is_refused_by_name(how: str) -> None:
    with Workload.start("confined", ["landlock", *how.split()]) as workload:
        workload.wait_ready()
        before = os.listdir(f"/proc/{workload.pid}/fd")
        check = [sys.executable, "-m", "torpor.cli.torpor", "check", str(workload.pid)]
        assert "not looked at: whether it has confined" in subprocess.check_output(check, text=True)
        told = json.loads(subprocess.check_output([*check, "--json"]))
        assert told["problems"] == [] and "Landlock" in told["not_looked_at"][0]
        with pytest.raises(engine.EngineError, match=r"confined itself by Landlock, which cannot be carried"):
            engine.dump(workload.pid, workload.images)
        assert os.listdir(f"/proc/{workload.pid}/fd") == before
        assert workload.processes() == [workload.pid]
        workload.expect_pass()


@pytest.mark.root
@pytest.mark.parametrize("what", ["mdwe", "dispatch", ""])
def test_other_readers_refuse_what_they_would_set_free(what: str) -> None:
    if what == "mdwe":
        _need_mdwe()
    with Workload.start("confined", [what]) as workload:
        workload.wait_ready()
        workload.dump()
        with DirStore(workload.images, "r") as store:
            assert load_one(store, kinds.INVENTORY).img_version == (10002 if what else 2)
        workload.restore()
        workload.expect_pass()


@pytest.mark.root
def test_a_restorer_that_may_not_make_code_says_so() -> None:
    _need_mdwe()
    with Workload.start("counter") as workload:
        workload.wait_ready()
        workload.dump()
        with engine.using(_confined_caller("mdwe")):
            with pytest.raises(engine.EngineError, match="torpor itself may not make code of what was writable"):
                engine.restore(workload.images)
        workload.restore()
        workload.expect_pass()


@pytest.mark.root
def test_a_restorer_in_a_domain_says_so() -> None:
    with Workload.start("counter") as workload:
        workload.wait_ready()
        workload.dump()
        with engine.using(_confined_caller("landlock")):
            workload.restore()
        assert "torpor is confined by Landlock" in (workload.images / "restore.log").read_text()
        workload.expect_pass()
