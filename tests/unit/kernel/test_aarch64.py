"""aarch64: its numbers and structures against the headers, its code assembled, and run by an emulator of user mode."""

import ast
import os
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from harness.program import need
from harness.skips import missing
from torpor.kernel.arch.aarch64 import call, loop, nr, regs, restart, sigframe, stub, trampoline, vdso, xstate
from torpor.kernel.arch.x86_64 import call as x86_call
from torpor.kernel.arch.x86_64 import loop as x86_loop
from torpor.kernel.arch.x86_64 import nr as x86_nr
from torpor.kernel.arch.x86_64 import regs as x86_regs
from torpor.kernel.arch.x86_64 import restart as x86_restart
from torpor.kernel.arch.x86_64 import sigframe as x86_sigframe
from torpor.kernel.arch.x86_64 import stub as x86_stub
from torpor.kernel.arch.x86_64 import trampoline as x86_trampoline
from torpor.kernel.arch.x86_64 import vdso as x86_vdso
from torpor.kernel.arch.x86_64 import xstate as x86_xstate
from torpor.tracee.stub import elf_of

HEADERS = Path("/usr/aarch64-linux-gnu/include")
PAIRS = [
    (x86_call, call), (x86_loop, loop), (x86_regs, regs), (x86_restart, restart), (x86_sigframe, sigframe),
    (x86_stub, stub), (x86_trampoline, trampoline), (x86_vdso, vdso), (x86_xstate, xstate),
]  # fmt: skip


def assembled(listing: str, tmp_path: Path) -> bytes:
    source, object_file, binary = tmp_path / "a.s", tmp_path / "a.o", tmp_path / "a.bin"
    source.write_text(listing)
    subprocess.run([need("aarch64-linux-gnu-as"), "-o", object_file, source], check=True)
    subprocess.run([need("aarch64-linux-gnu-objcopy"), "-O", "binary", "-j", ".text", object_file, binary], check=True)
    return binary.read_bytes()


def emulated(
    program: bytes, tmp_path: Path, *, stdin: int = subprocess.DEVNULL, cpu: str = "max"
) -> subprocess.CompletedProcess[bytes]:
    file = tmp_path / "program"
    file.write_bytes(program)
    file.chmod(0o755)
    line = [need("qemu-aarch64", "qemu-aarch64-static"), "-cpu", cpu, str(file)]
    return subprocess.run(line, stdin=stdin, capture_output=True, timeout=60, check=False)


def by_the_headers(tmp_path: Path, headers: list[str], expressions: list[str]) -> list[int]:
    """The values of C expressions as the headers of that machine give them; -1 for an unknown name.

    The compiler is this machine's: both lay out structures alike (LP64, little endian).
    """
    if not HEADERS.is_dir():
        missing("linux-libc-dev-arm64-cross")
    lines = [f"#include <{header}>" for header in headers]
    lines += ["int printf(const char *, ...);", "int main(void) {"]
    for text in expressions:
        lines += [f"#ifdef {text}" if text.isidentifier() else "#if 1"]
        lines += [f'printf("%lld\\n", (long long)({text}));', "#else", 'printf("-1\\n");', "#endif"]
    source, program = tmp_path / "values.c", tmp_path / "values"
    source.write_text("\n".join([*lines, "}"]))
    subprocess.run([need("gcc"), "-nostdinc", f"-I{HEADERS}", "-o", program, source], check=True)
    return [int(line) for line in subprocess.run([program], capture_output=True, check=True).stdout.split()]


def numbers(module: ModuleType) -> dict[str, int]:
    return {name: value for name, value in vars(module).items() if isinstance(value, int) and not name.startswith("_")}


def test_system_call_numbers(tmp_path: Path) -> None:
    mine = numbers(nr)
    found = by_the_headers(tmp_path, ["asm/unistd.h"], [f"__NR_{name}" for name in mine])
    wrong = [each for each, there in zip(mine.items(), found, strict=True) if there not in (-1, each[1])]
    assert not wrong
    assert sum(there != -1 for there in found) > 280


def test_calls_that_all_machines_make_are_there(repository: Path) -> None:
    """What is asked of a machine's numbers outside of its own folder exists on both."""
    root = repository / "src" / "torpor"
    wanted = set()
    for path in root.rglob("*.py"):
        if not {"x86_64", "aarch64"} & set(path.parts):
            wanted |= {
                node.attr
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nr"
            }
    assert len(wanted) > 80
    assert sorted(wanted - set(numbers(nr))) == []
    assert sorted(wanted - set(numbers(x86_nr))) == []


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_both_machines_offer_the_same(theirs: ModuleType, ours: ModuleType) -> None:
    """What the layers above use of a module of one machine, the other's has."""
    used = {
        "regs": "UserRegs of_new_task read_regs write_regs", "loop": "CODE RECORD RECORD_SIZE start LISTING",
        "restart": "outside transparent", "sigframe": "build size_for", "xstate": "read write is_lost_by_calls",
    }  # fmt: skip
    name = ours.__name__.rpartition(".")[2]
    names = used[name].split() if name in used else [each for each in vars(theirs) if each.isupper() or each == "jump"]
    names = [each for each in names if not each.startswith("_")]
    assert names and all(hasattr(theirs, each) and hasattr(ours, each) for each in names)
    if name == "regs":
        offered = {each for each in vars(x86_regs.UserRegs) if not each.startswith("_") and len(each) > 6}
        assert offered - {"orig_ax", "fs_base", "gs_base"} <= set(vars(regs.UserRegs))


def test_structures(tmp_path: Path) -> None:
    offset = "__builtin_offsetof"
    expressions = {
        "sizeof(struct user_pt_regs)": regs.SIZE,
        "sizeof(struct user_fpsimd_state)": xstate.SIZE,
        f"{offset}(struct user_fpsimd_state, fpsr)": 512,
        f"{offset}(struct ucontext, uc_mcontext)": sigframe._MCONTEXT_OFFSET,
        f"{offset}(struct ucontext, uc_sigmask)": 40,
        f"{offset}(struct sigcontext, regs)": 8,
        f"{offset}(struct sigcontext, __reserved)": sigframe._RESERVED_OFFSET,
        "sizeof(struct ucontext)": sigframe.UCONTEXT_SIZE,
        "sizeof(struct fpsimd_context)": sigframe._FPSIMD_SIZE,
        f"{offset}(struct fpsimd_context, vregs)": 16,
        "FPSIMD_MAGIC": sigframe._FPSIMD_MAGIC,
        "PSR_MODE32_BIT": regs._MODE32,
        "PSR_BTYPE_MASK": regs._BTYPE,
        "EM_AARCH64": stub.ELF_MACHINE,
        "sizeof(siginfo_t)": sigframe._SIGINFO_SIZE,
        **{name: value for name, value in vars(xstate).items() if name.startswith("NT_")},
        "sizeof(struct user_sve_header)": xstate.SVE_HEADER.size,
        "SVE_PT_REGS_SVE": xstate.SVE_PT_REGS_SVE,
        "SVE_PT_REGS_OFFSET": xstate.SVE_HEADER.size,
        "SVE_MAGIC": sigframe._SVE_MAGIC,
        "sizeof(struct sve_context)": sigframe._SVE_CONTEXT.size,
        "EXTRA_MAGIC": sigframe._EXTRA_MAGIC,
        "sizeof(struct extra_context)": sigframe._EXTRA_CONTEXT.size,
    }
    # As asm/ucontext.h has it for the kernel; sigset_t of the C library is longer.
    headers = ["asm/ptrace.h", "asm/sigcontext.h", "asm/signal.h", "asm/siginfo.h", "asm/ucontext.h", "linux/elf.h"]
    found = by_the_headers(tmp_path, headers, list(expressions))
    # The newest of them may not be in the headers yet.
    assert {
        name: value for name, value in zip(expressions, found, strict=True) if value != -1
    }.items() <= expressions.items()
    assert found.count(-1) < 4


@pytest.mark.parametrize(
    ("listing", "code"),
    [
        (loop.LISTING, loop.CODE),
        (stub.LISTING, stub.CODE),
        ("mov x8, #139\nsvc #0\n", call.SIGRETURN[0]),
        ("svc #0\nret\n", call.SYSCALL_RET),
        ("ldr x16, 1f\nbr x16\n1: .quad 0x123456789\n", trampoline.jump(0x123456789)),
        (f"mov x8, #{nr.clock_gettime}\nsvc #0\nret\n", trampoline.SYSTEM_CALLS["clock_gettime"]),
        ("mov x0, #-38\nret\n", trampoline.NO_SYSTEM_CALL),
        (
            f"cmn x4, #1\nb.eq 1f\nmov x8, #{nr.getrandom}\nsvc #0\nret\n1: mov x0, #-38\nret\n",
            trampoline.SYSTEM_CALLS["getrandom"],
        ),
    ],
)
def test_the_bytes_are_the_listing(listing: str, code: bytes, tmp_path: Path) -> None:
    assert assembled(listing, tmp_path) == code


def test_the_stub_waits_for_its_pipe_and_ends(tmp_path: Path) -> None:
    assert stub.CODE[stub.SYSCALL_OFFSET :].startswith(call.SYSCALL)
    reader, writer = os.pipe()
    os.close(writer)
    try:
        done = emulated(elf_of(stub.ELF_MACHINE, stub.CODE), tmp_path, stdin=reader)
    finally:
        os.close(reader)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# -- the loop, from its first record to the frame that it returns by --------------------------------------------------

_PROGRAM_AT = 0x10000 + 120
_AFTER_OFFSET, _LOOP_OFFSET, _DATA_OFFSET = 0x400, 0x800, 0x1000
_DATA = 0x10000 + _DATA_OFFSET
_N_RECORDS = 5
_RECORDS = _DATA
_FRAME = _DATA + 0x400
_OUT = _DATA + 0x2000
_OUT_SIZE = 31 * 8 + 8 + 8 + 32 * 16
_SVE_OUT = _DATA + 0x6000
_SIGURG = 23

_BEFORE = f"""
        ldr     x19, =0x{_RECORDS:x}
        mov     w20, #{_N_RECORDS}
        mov     w21, #{_SIGURG}
        ldr     x22, =0x{_FRAME:x}
        ldr     x9, =0x{0x10000 + _LOOP_OFFSET:x}
        br      x9
"""
#: Where the frame leads: writes down what the registers are, and the signal mask.
_AFTER = f"""
        stp     x28, x29, [sp]
        ldr     x28, =0x{_OUT:x}
        {"".join(f"str x{number}, [x28, #{number * 8}]; " for number in [*range(28), 30])}
        ldp     x0, x1, [sp]
        stp     x0, x1, [x28, #{28 * 8}]
        mov     x0, sp
        str     x0, [x28, #{31 * 8}]
        add     x1, x28, #{33 * 8}
        {"".join(f"str q{number}, [x1], #16; " for number in range(32))}
        mov     x0, #0
        mov     x1, #0
        add     x2, x28, #{32 * 8}
        mov     x3, #8
        mov     x8, #{nr.rt_sigprocmask}
        svc     #0
        mov     x0, #1
        ldr     x1, =0x{_RECORDS:x}
        mov     x2, #{_N_RECORDS * loop.RECORD_SIZE}
        mov     x8, #{nr.write}
        svc     #0
        mov     x0, #1
        mov     x1, x28
        mov     x2, #{_OUT_SIZE}
        mov     x8, #{nr.write}
        svc     #0
        mov     x0, #7
        mov     x8, #{nr.exit_group}
        svc     #0
"""
_NOT_MADE = -12345


#: Where a frame with registers of SVE's leads: writes them down, behind how many bytes a vector has.
_AFTER_SVE = f"""
        .arch armv8-a+sve
        ldr     x28, =0x{_SVE_OUT:x}
        mov     x29, x28
        rdvl    x1, #1
        {"".join(f"str z{number}, [x28]; add x28, x28, x1; " for number in range(32))}
        {"".join(f"str p{number}, [x28, #{number}, mul vl]; " for number in range(16))}
        mov     x0, #1
        mov     x2, x1
        lsl     x1, x1, #5
        lsl     x2, x2, #1
        add     x2, x2, x1
        mov     x1, x29
        mov     x8, #{nr.write}
        svc     #0
        mov     x0, #7
        mov     x8, #{nr.exit_group}
        svc     #0
"""


def with_loop(records: bytes, frame: bytes, tmp_path: Path, after: str = _AFTER) -> bytes:
    """A program that runs the loop over *records* and returns by *frame*."""
    image = bytearray(0x10000)
    for offset, part in (
        (_PROGRAM_AT - 0x10000, assembled(_BEFORE, tmp_path)),
        (_AFTER_OFFSET, assembled(after, tmp_path)),
        (_LOOP_OFFSET, loop.CODE),
        (_RECORDS - 0x10000, records),
        (_FRAME - 0x10000, frame),
    ):
        image[offset : offset + len(part)] = part
    program = bytearray(elf_of(stub.ELF_MACHINE, bytes(image[_PROGRAM_AT - 0x10000 :])))
    struct.pack_into("<I", program, 64 + 4, 7)  # p_flags: also writable
    return bytes(program)


def test_the_loop_makes_its_calls_and_returns_by_the_frame(tmp_path: Path) -> None:
    """Results are stored where later records use them; a failure that may be is no end."""
    at = [_RECORDS + number * loop.RECORD_SIZE for number in range(_N_RECORDS)]
    argument = loop.ARG_OFFSET
    records = [
        (nr.dup, 0, (1,), at[1] + argument, at[2] + argument),
        (nr.fcntl, 0, (_NOT_MADE & 0xFFFFFFFF, 1), 0, 0),  # F_GETFD of what was duplicated
        (nr.close, 0, (_NOT_MADE & 0xFFFFFFFF,), 0, at[4] + argument),
        (nr.close, 1, (99,), 0, 0),
        (nr.close, 0, (99,), 0, 0),
    ]
    memory = b"".join(
        loop.RECORD.pack(number, may_fail, *(*args, *[0] * (6 - len(args))), _NOT_MADE, store, other)
        for number, may_fail, args, store, other in records
    )
    want = regs.UserRegs(*(0x1000 + number for number in range(31)))
    want.sp, want.ip = _DATA + 0x3000, 0x10000 + _AFTER_OFFSET
    vectors = bytes(number % 251 for number in range(512))
    state = vectors + struct.pack("<IIQ", 0, 0, 0)
    frame = sigframe.build(_FRAME, want, state, 1 << 9)
    assert len(frame) <= sigframe.size_for(state)

    done = emulated(with_loop(memory, frame, tmp_path), tmp_path)
    assert (done.returncode, done.stderr) == (7, b"")

    results = [loop.RECORD.unpack_from(done.stdout, number * loop.RECORD_SIZE)[8] for number in range(_N_RECORDS)]
    assert results[0] > 2
    assert results[1:] == [0, 0, -9, 0]
    out = done.stdout[_N_RECORDS * loop.RECORD_SIZE :]
    general = struct.unpack_from("<33Q", out)
    assert list(general[:31]) == [0x1000 + number for number in range(31)]
    assert general[31:] == (want.sp, 1 << 9)
    assert out[33 * 8 :] == vectors


def test_a_failure_that_may_not_be_ends_the_loop(tmp_path: Path) -> None:
    """The records behind it are not made (the third would end the program)."""
    records = [(nr.getppid, 0, 0), (nr.close, 0, 99), (nr.exit_group, 0, 3)] + [(nr.getppid, 0, 0)] * (_N_RECORDS - 3)
    memory = b"".join(loop.RECORD.pack(number, may, arg, 0, 0, 0, 0, 0, 0, 0, 0) for number, may, arg in records)
    want = regs.UserRegs(sp=_DATA + 0x3000, ip=0x10000 + _AFTER_OFFSET)
    frame = sigframe.build(_FRAME, want, bytes(xstate.SIZE), 0)
    assert emulated(with_loop(memory, frame, tmp_path), tmp_path).returncode == 7


@pytest.mark.parametrize("length", [16, 64, 256])
def test_a_frame_has_all_of_the_registers_of_sve(length: int, tmp_path: Path) -> None:
    """The longest do not fit into the frame, and lie behind it."""
    registers = bytes(number % 251 for number in range(32 * length)) + bytes(
        1 + number % 255 for number in range(2 * length)
    )
    registers += bytes(length // 8)  # FFR
    size = xstate.SVE_HEADER.size + len(registers) + 15 & -16
    header = xstate.SVE_HEADER.pack(size + 16, size + 16, length, 256, xstate.SVE_PT_REGS_SVE, 0)
    sve = (header + registers).ljust(size + 16, b"\0")
    low = b"".join(registers[at : at + 16] for at in range(0, 32 * length, length))
    state = xstate.pack(low + bytes(16), {xstate.NT_ARM_SVE: sve})
    assert xstate.is_lost_by_calls(state)
    record = loop.RECORD.pack(nr.getppid, 0, *[0] * 6, 0, 0, 0) * _N_RECORDS
    want = regs.UserRegs(sp=_DATA + 0x3000, ip=0x10000 + _AFTER_OFFSET)
    frame = sigframe.build(_FRAME, want, state, 0)
    assert len(frame) <= sigframe.size_for(state)
    program = with_loop(record, frame, tmp_path, _AFTER_SVE)
    done = emulated(program, tmp_path, cpu=f"max,sve-default-vector-length={length}")
    assert (done.returncode, done.stderr) == (7, b"")
    assert done.stdout == registers[: 34 * length]


def test_registers() -> None:
    task = regs.UserRegs(*range(34))
    assert regs.UserRegs.unpack(task.pack()) == task == task.copy()
    task.set_call(0x4000, nr.close, (-1, 2))
    assert (task.ip, task.x8, task.x0, task.x1, task.x5) == (0x4000, nr.close, (1 << 64) - 1, 2, 0)
    call.set_return(task, 0x7000, 0x5000)
    assert (task.sp, task.x30, call.below_frame(0x5000)) == (0x7000, 0x5000, bytes(call.FRAME_OFFSET))
    loop.start(task, 1, 2, 3, 4, 5)
    assert (task.ip, task.x19, task.x20, task.x21, task.x22) == (1, 2, 3, 4, 5)
    assert task.emptied() == regs.UserRegs() == regs.of_new_task()


def test_an_instruction_stands_at_four_bytes() -> None:
    """As libc of Debian 12 has these bytes first elsewhere, where a task that is sent there faults for ever."""
    text = b"\0" + call.SYSCALL + b"\0" * 3 + call.SYSCALL_RET
    assert call.find(text, call.SYSCALL) == call.find(text, call.SYSCALL_RET) == 8
    assert call.find(text[:8], call.SYSCALL) == call.find(b"", call.SYSCALL) == -1
