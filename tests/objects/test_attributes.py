"""The differential table of a task's attributes: everything that can be asked of it, before and after.

``pytest -s`` prints it.
"""

import re
import sys

import pytest

from harness import engine
from harness.flavours import Flavour, carry_through, default_flavours, start
from harness.workload import Workload

#: What a caller may have set before it runs us, all of which is inherited.
_STRANGE = """
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None)
for number in range(1, 65):
    if number not in (9, 17, 19):
        libc.syscall(13, number, (ctypes.c_uint64 * 4)(1, 0, 0, 0), None, 8)
os.sched_setaffinity(0, {0})
os.umask(0o077)
resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, resource.RLIM_INFINITY))
for name, text in (("coredump_filter", "0x7f"), ("oom_score_adj", "321"), ("autogroup", "7")):
    try:
        with open("/proc/self/" + name, "w") as stream:
            stream.write(text)
    except OSError:
        pass
libc.syscall(251, 1, 0, 3 << 13)                                 # ioprio_set
node = ctypes.c_ulong(1)
libc.syscall(238, 2, ctypes.byref(node), 64)                     # set_mempolicy
attr = (ctypes.c_uint32 * 14)(56, 3, 0, 0, 5, 0, 6000000)        # sched_setattr: batch, nice 5, a slice of 6 ms
libc.syscall(314, 0, attr, 0)
libc.syscall(250, 1, None)                                       # keyctl: a session keyring
libc.personality(0x0040000)
for words in ((29, 4321), (33, 1, 0, 0, 0), (41, 1, 0, 0, 0), (67, 1, 0, 0, 0), (57, 1, 0, 0, 0), (1, 10), (36, 1),
              (53, 0, 4, 0, 0), (53, 1, 4, 0, 0), (28, 0x40), *(((38, 1, 0, 0, 0),) if sys.argv[1] == "nnp" else ())):
    libc.prctl(*words)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def _strange_caller(more: str = "") -> list[str]:
    return [sys.executable, "-c", _STRANGE, more, *engine.command()]


@pytest.mark.parametrize("mode", ["plain", "odd", "keyed"])
@pytest.mark.parametrize(
    "flavour",
    [pytest.param(each, marks=[pytest.mark.root] if each != "control" else []) for each in default_flavours()],
)
def test_attributes(flavour: Flavour, mode: str) -> None:
    with start(flavour, "attributes", [mode]) as workload:
        workload.wait_ready()
        carry_through(flavour, workload)
        workload.expect_pass()
        print(workload.log())


@pytest.mark.root
@pytest.mark.parametrize("mode", ["plain", "odd", "keyed"])
@pytest.mark.parametrize("flavour", [Flavour.HOST, Flavour.JOB, Flavour.FRESH, Flavour.USER])
def test_nothing_is_inherited_from_the_restorer(flavour: Flavour, mode: str) -> None:
    with start(flavour, "attributes", [mode]) as workload:
        workload.wait_ready()
        workload.dump()
        with engine.using(_strange_caller()):
            workload.restore()
        workload.expect_pass()


@pytest.mark.root
def test_what_cannot_be_taken_back_is_told() -> None:
    with Workload.start("attributes", ["plain"]) as workload:
        workload.wait_ready()
        workload.dump()
        with engine.using(_strange_caller("nnp")):
            workload.restore()
        said = (workload.images / "restore.log").read_text()
        assert re.search(r"torpor runs with no_new_privs, so \d+ restored threads", said)
        assert "no_new_privs was 0, is 0x1" in workload.finish()
