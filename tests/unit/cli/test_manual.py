"""Manual pages and completions hold every command and every option, since they are made of the same tables."""

import shutil
import subprocess
from pathlib import Path

import pytest

from torpor.cli import completion, manual
from torpor.cli.criu.descriptions import COMMANDS as CRIU_TEXTS
from torpor.cli.criu.main import COMMANDS as CRIU_COMMANDS
from torpor.cli.criu.options import OPTIONS
from torpor.cli.criu.usage import text
from torpor.cli.torpor import COMMANDS
from torpor.cli.words import commands_of_torpor


def _shown(page: str) -> str:
    """As a reader sees it."""
    for sign, plain in (("\\-", "-"), ("\\e", "\\"), ("\\&", ""), ("\\fB", ""), ("\\fI", ""), ("\\fR", "")):
        page = page.replace(sign, plain)
    return page


def test_every_option_of_criu_is_described() -> None:
    assert all(option.text for option in OPTIONS)
    assert set(CRIU_TEXTS) == set(CRIU_COMMANDS)
    help_text, page = text(), _shown(manual.criu())
    for option in OPTIONS:
        assert f"--{option.name}" in help_text and f"--{option.name}" in page
    assert max(map(len, help_text.splitlines())) < 80


def test_every_command_and_option_of_torpor_is_in_the_manual() -> None:
    page = _shown(manual.torpor())
    found = commands_of_torpor()
    assert [command.name for command in found] == list(COMMANDS)
    for command in found:
        section = page.partition(f".SS torpor {command.name}\n")[2].partition("\n.SS ")[0]
        assert command.text.split(". ")[0] in section
        for option in command.options:
            if option.long not in ("--help", "--verbose"):
                assert option.text, f"torpor {command.name} {option.long} has no text"
                assert all(name in section for name in option.names)


def test_pages_are_of_the_form_that_man_takes() -> None:
    for page in manual.pages().values():
        lines = page.splitlines()
        assert lines[1].startswith(".TH ") and ".SH EXAMPLES" in lines
        assert not [line for line in lines if line.startswith("'") or len(line) > 1000]
        assert lines.count(".nf") == lines.count(".fi")


@pytest.mark.parametrize("place", completion.files())
def test_every_option_is_completed(place: str) -> None:
    script = completion.files()[place]
    names = {option.name for option in OPTIONS}
    if "torpor" in place:
        names = {option.long[2:] for command in commands_of_torpor() for option in command.options}
        assert all(name in script for name in COMMANDS)
    for name in names:
        assert (f"-l {name} " in script) if place.startswith("fish") else (f"--{name}" in script), name


@pytest.mark.parametrize("place", completion.files())
def test_the_shell_takes_it(place: str, tmp_path: Path) -> None:
    """As far as the shell is here; bash always is."""
    shell = place.partition("/")[0].removesuffix("-completion")
    if shell != "bash" and shutil.which(shell) is None:
        return
    path = tmp_path / "script"
    path.write_text(completion.files()[place])
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_commands_options_and_choices(tmp_path: Path) -> None:
    path = tmp_path / "torpor"
    path.write_text(completion.files()["bash-completion/completions/torpor"])

    def complete(*words: str) -> list[str]:
        program = f"source {path}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _torpor_complete; "
        line = ["bash", "-c", program + 'printf "%s\\n" "${COMPREPLY[@]}"']
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()

    assert complete("torpor", "chec") == ["checkpoint", "checkpoints", "check"]
    assert complete("torpor", "-v", "checkpoint", "--leave") == ["--leave-running", "--leave-stopped"]
    assert complete("torpor", "checkpoint", "--exec-processes", "c") == ["carry"]
