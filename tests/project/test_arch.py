"""What is true of one machine only stands in ``kernel/arch`` and ``objects/arch``; the size of a page in one place."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Where such words are at home, and the generated text of the format, which has all machines.
AT_HOME = ("kernel/arch/", "objects/arch/", "images/_descriptors.py", "images/messages.pyi")
#: Lines elsewhere that name all machines alike.
ALL_MACHINES = {"engine/sets/contents.py": ('    1: "x86_64",', '    3: "aarch64",')}

_REGISTERS = r"r?[abcd]x|r?[sd]i|r?[bsi]p|r1?[0-9]|orig_r?ax|cs|ss|[fg]s_base|eflags|x[0-9]{1,2}|pstate"
_WORDS = re.compile(
    r"x86|X86|i386|NT_386|aarch64|AARCH64|AMD64|amd64|arm64"
    r"|\bthread_info|\bti_[a-z]|gpregs|fpregs|xsave|fpsimd|\bxmm|\bymm|\bmxcsr"
    r"|\b(rax|rbx|rcx|rdx|rsi|rdi|rbp|rsp|rip|orig_ax|eflags|fs_base|gs_base)\b"
    rf"|\bregs\.({_REGISTERS})\b(?<!regs\.sp)(?<!regs\.ip)"
    r"|UserRegs\([^)]|user_regs|user_pt_regs|arch_prctl"
    r"|\\x0f\\x05|0f05|\bCPUID\b|\bsyscall; ret|\bsvc\b"
)
_PAGE = re.compile(r"\bPAGE\w* *= *(4096|0x1000|1 << 12)|(//|%|\*|&) *-?(4096|0x1000|4095)\b", re.IGNORECASE)
#: The size of a page in images, whoever reads them, and of what is hashed; neither is this machine's.
PAGES_AT_HOME = ("images/pagemap.py", "objects/files/validation.py", "kernel/ptrace.py")


def foreign_words(name: str, text: str) -> Iterator[str]:
    if name.startswith(AT_HOME):
        return
    for number, line in enumerate(text.splitlines(), 1):
        if _WORDS.search(line) and line not in ALL_MACHINES.get(name, ()):
            yield f"{name}:{number}: {line.strip()}"


def sources(repository: Path) -> Iterator[tuple[str, str]]:
    root = repository / "src" / "torpor"
    for path in sorted(root.rglob("*.py")):
        yield str(path.relative_to(root)), path.read_text()


def test_words_of_one_machine_stay_at_home(repository: Path) -> None:
    found = [each for name, text in sources(repository) for each in foreign_words(name, text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "regs.ax = 5", "regs = UserRegs(cs=0x33)", "m.core_entry.X86_64", "core.thread_info.clear_tid_addr", "regs.r12",
        'bytes.fromhex("0f05c3")', "# orig_ax is -1", "batch.call(nr.arch_prctl, 1, 2)",
        "core.ti_aarch64", "regs.x8 = 1",
    ],
)  # fmt: skip
def test_such_a_word_is_found(line: str) -> None:
    assert list(foreign_words("tracee/remote.py", line))
    assert not list(foreign_words("objects/arch/x86_64/core.py", line))


@pytest.mark.parametrize("line", ["at = regs.ip", "regs.sp - size", "regs = of_new_task()", "axes", "thread.ns_tid"])
def test_words_of_all_machines_are_not(line: str) -> None:
    assert not list(foreign_words("tracee/remote.py", line))


def test_the_size_of_a_page_in_most_images_is_nobodys_guess(repository: Path) -> None:
    """Who reads images asks them, and who writes them asks the kernel; the dump alone says where the two differ."""
    may_know = ("images/", "engine/dump/writing.py")
    found = [name for name, text in sources(repository) if "PAGE_BYTES" in text and not name.startswith(may_know)]
    assert not found


def test_the_size_of_a_page_stands_in_one_place(repository: Path) -> None:
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in sources(repository)
        for number, line in enumerate(text.splitlines(), 1)
        if _PAGE.search(line) and name not in PAGES_AT_HOME
    ]
    assert not found, "\n".join(found)
