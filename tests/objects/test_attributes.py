"""The differential table of a task's attributes: everything that can be asked of it, before and after.

``pytest -s`` prints it.
"""

import re
import sys
from pathlib import Path

import pytest

from harness import engine
from harness.flavours import Flavour, carry_through, default_flavours, start
from harness.skips import missing
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


#: What prctl(2) tells of a task up to Linux 6.18, by the number; where it is not asked here, why.
_TOLD = {
    "PR_GET_PDEATHSIG": (2, ""),
    "PR_GET_DUMPABLE": (3, ""),
    "PR_GET_UNALIGN": (5, ""),
    "PR_GET_KEEPCAPS": (7, ""),
    "PR_GET_FPEMU": (9, "powerpc"),
    "PR_GET_FPEXC": (11, "powerpc"),
    "PR_GET_TIMING": (13, ""),
    "PR_GET_NAME": (16, ""),
    "PR_GET_ENDIAN": (19, "powerpc"),
    "PR_GET_SECCOMP": (21, "ends a task in strict mode: asked of /proc; test_seccomp_strict.py and its neighbours"),
    "PR_CAPBSET_READ": (23, "asked of /proc, all at once"),
    "PR_GET_TSC": (25, ""),
    "PR_GET_SECUREBITS": (27, ""),
    "PR_GET_TIMERSLACK": (30, ""),
    "PR_MCE_KILL_GET": (34, ""),
    "PR_GET_CHILD_SUBREAPER": (37, ""),
    "PR_GET_NO_NEW_PRIVS": (39, ""),
    "PR_GET_TID_ADDRESS": (40, ""),
    "PR_GET_THP_DISABLE": (42, ""),
    "PR_GET_FP_MODE": (46, "mips"),
    "PR_CAP_AMBIENT_IS_SET": (1, "asked of /proc, all at once"),
    "PR_SVE_GET_VL": (51, "arm64"),
    "PR_GET_SPECULATION_CTRL": (52, ""),
    "PR_GET_TAGGED_ADDR_CTRL": (56, ""),
    "PR_GET_IO_FLUSHER": (58, ""),
    "PR_PAC_GET_ENABLED_KEYS": (61, "arm64"),
    "PR_SCHED_CORE_GET": (0, "a cookie that is never the same: test_scheduling.py"),
    "PR_SME_GET_VL": (64, "arm64"),
    "PR_GET_MDWE": (66, ""),
    "PR_GET_MEMORY_MERGE": (68, ""),
    "PR_RISCV_V_GET_CONTROL": (70, "riscv"),
    "PR_PPC_GET_DEXCR": (72, "powerpc"),
    "PR_GET_SHADOW_STACK_STATUS": (74, "arm64, riscv; arch_prctl(2) here"),
    "PR_TIMER_CREATE_RESTORE_IDS_GET": (77, ""),
    "PR_FUTEX_HASH_GET_SLOTS": (78, ""),
    "PR_GET_AUXV": (0x41555856, "test_vdso.py"),
}
#: Names of flags and of calls that change something.
_NOT_TOLD = ("PR_SET_", "PR_SPEC_", "PR_SVE_SET_", "PR_MTE_", "PR_TAGGED_", "PR_CAP_AMBIENT_CLEAR", "PR_PAC_SET_")


def test_all_that_prctl_tells_is_in_the_table() -> None:
    """Of the installed headers, which may be older than the table or newer; and what it says is asked is."""
    header = Path("/usr/include/linux/prctl.h")
    if not header.exists():
        missing("linux/prctl.h (Debian: linux-libc-dev)")
    names = re.findall(r"^#\s*define\s+(PR_\w*(?:_GET|BSET_READ|IS_SET)\w*)\s", header.read_text(), re.MULTILINE)
    assert not [name for name in names if name not in _TOLD and not name.startswith(_NOT_TOLD)]
    workload = (Path(__file__).parents[1] / "workloads/attributes.c").read_text()
    for name, (number, why_not) in _TOLD.items():
        asked = re.search(rf"\b{name}\b|prctl\({number}, ", workload)
        assert bool(asked) != bool(why_not), name


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
