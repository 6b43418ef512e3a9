"""Numbers and structures against the system's own headers, by the C compiler."""

import subprocess
from pathlib import Path

import pytest

from harness.program import need
from torpor.kernel import kcmp, ptrace
from torpor.kernel.arch import nr, regs, sigframe


def evaluate(tmp_path: Path, headers: list[str], expressions: list[str]) -> list[int]:
    """The values of C expressions; one that the headers do not know is left out by giving -1."""
    lines = ["#define _GNU_SOURCE", *[f"#include <{header}>" for header in headers], "#include <stdio.h>"]
    lines += ["int main(void) {"]
    for text in expressions:
        lines += [f"#ifdef {text}" if text.isidentifier() else "#if 1"]
        lines += [f'printf("%lld\\n", (long long)({text}));', "#else", 'puts("-1");', "#endif"]
    source, program = tmp_path / "values.c", tmp_path / "values"
    source.write_text("\n".join([*lines, "}"]))
    subprocess.run([need("gcc"), "-o", str(program), str(source)], check=True)
    return [int(line) for line in subprocess.run([program], capture_output=True, check=True).stdout.split()]


def test_system_call_numbers(tmp_path: Path) -> None:
    mine = {name: value for name, value in vars(nr).items() if isinstance(value, int) and not name.startswith("_")}
    names = [f"__NR_{name.rstrip('_') if name != 'sysctl_' else '_sysctl'}" for name in mine]
    found = evaluate(tmp_path, ["sys/syscall.h"], names)
    wrong = [
        (name, value, there)
        for (name, value), there in zip(mine.items(), found, strict=True)
        if there not in (-1, value)
    ]
    assert not wrong
    assert sum(there != -1 for there in found) > 300


@pytest.mark.parametrize("name", [name for name in vars(ptrace) if name.startswith("PTRACE_")])
def test_ptrace_constants(name: str, tmp_path: Path) -> None:
    (found,) = evaluate(tmp_path, ["linux/ptrace.h"], [name])
    assert found in (-1, getattr(ptrace, name))


def test_structures(tmp_path: Path) -> None:
    expressions = [
        "sizeof(struct user_regs_struct)",
        "offsetof(struct user_regs_struct, orig_rax)",
        "sizeof(ucontext_t)",
        "KCMP_FILE",
        "KCMP_SYSVSEM",
    ]
    sizes = evaluate(tmp_path, ["stddef.h", "sys/user.h", "ucontext.h", "linux/kcmp.h"], expressions[:2])
    assert sizes == [regs.SIZE, 15 * 8]
    # The C library's ucontext_t ends in more room than the kernel's; what precedes it is the kernel's.
    (mask_at,) = evaluate(tmp_path, ["stddef.h", "ucontext.h"], ["offsetof(ucontext_t, uc_sigmask)"])
    assert mask_at == sigframe.UCONTEXT_SIZE - 8
    values = evaluate(tmp_path, ["linux/kcmp.h"], ["KCMP_FILE + 0", "KCMP_SYSVSEM + 0"])
    assert values == [kcmp.KCMP_FILE, kcmp.KCMP_SYSVSEM]
