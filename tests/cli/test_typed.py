"""What README, tutorials and manual pages show, typed into an interactive shell with job control on."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.skips import missing
from harness.typed import Block, Terminal, blocks_of, commands_in, environment
from torpor.cli import manual

pytestmark = pytest.mark.root
_ROOT = Path(__file__).parents[2]
_DOCUMENTS = ("README.md", "docs/tutorial/first-steps.md")
#: What is not typed: the whole of it takes minutes, changes this machine, or is no command.
_NOT_TYPED = ("make ", "cd ", "exec-processes ")
#: Commands that need a container engine are typed where there is one: tests/e2e.
_OF_CONTAINERS = ("torpor setup", "torpor checkpoint web", "torpor restore web")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("bash") is None:
        missing("the command bash (Debian: bash)")
    for name in ("bin", "state", "work"):
        (tmp_path / name).mkdir()
    with Terminal(tmp_path / "work", environment(commands_in(tmp_path / "bin"), tmp_path / "state")) as found:
        yield found


def lines_of(block: Block) -> list[str]:
    return [line for line in block.lines if line.strip() and not line.startswith(_NOT_TYPED)]


def is_python(block: Block) -> bool:
    return block.lines[0].startswith("import ")


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_it_does_what_it_says(terminal: Terminal, document: str) -> None:
    n_typed = 0
    for block in blocks_of(_ROOT / document):
        if is_python(block):
            terminal.enter(sys.executable, ">>> ")
            said = "".join(
                terminal.enter(line, "... " if line.startswith(("with ", "    ")) else ">>> ") for line in block.lines
            )
            assert "Traceback" not in said, said
            terminal.enter("exit()")
            continue
        for line in lines_of(block):
            if not line.startswith(_OF_CONTAINERS):
                terminal.succeed(line)
                n_typed += 1
    assert n_typed > 3


@pytest.mark.parametrize("title", [title for title, _ in (*manual.EXAMPLES, *manual.CRIU_EXAMPLES)])
def test_an_example_of_the_manual(terminal: Terminal, title: str) -> None:
    for line in dict((*manual.EXAMPLES, *manual.CRIU_EXAMPLES))[title]:
        terminal.succeed(line)


def test_setsid_in_an_interactive_shell_is_explained(terminal: Terminal, tmp_path: Path) -> None:
    """It forks there, since it leads a group; so `$!` is the pid of one that has ended."""
    terminal.succeed("setsid sleep 1000 < /dev/null > /dev/null 2>&1 &")
    said = terminal.enter("wait $!; torpor checkpoint $! -o nap")
    assert "no process has pid" in said and "setsid" in said, said


def test_a_job_of_the_shell_with_its_terminal(terminal: Terminal) -> None:
    """`--shell-job` at both ends; without it the terminal is named."""
    terminal.succeed("sleep 1000 &")
    said = terminal.enter("torpor checkpoint $! -o nap")
    assert "--shell-job" in said, said
    terminal.succeed("torpor checkpoint $! -o nap --shell-job")
    terminal.succeed("torpor restore nap --shell-job")
    terminal.succeed("kill $!")
