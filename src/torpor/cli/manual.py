"""Manual pages: torpor(1) and torpor-criu(8), made of the tables of commands and options, as ``man`` takes them.

The examples are typed by a test into an interactive shell, as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator

from torpor import __version__
from torpor.cli.words import Command, Option, commands_of_criu, commands_of_torpor, options_of_criu

#: What is said first of each, and lines to type.
EXAMPLES = (
    (
        "A job goes to sleep, wakes, and is copied:",
        (
            "torpor run --name counter -d -- sh -c 'n=0; while sleep 1; do n=$((n+1)); echo $n; done'",
            "torpor checkpoint counter",
            "torpor checkpoints counter",
            "torpor restore counter",
            "torpor restore counter@1 --name counter2",
            "torpor ps",
            "torpor kill counter counter2",
        ),
    ),
    (
        "Any process, into a directory of its own:",
        (
            "sleep 1000 < /dev/null > /dev/null 2>&1 &",
            "torpor check $!",
            "torpor checkpoint $! -o nap",
            "torpor inspect nap",
            "torpor restore nap",
        ),
    ),
    (
        "A copy of a moment, in one file, of a process that goes on:",
        ("sleep 1000 < /dev/null > /dev/null 2>&1 &", "torpor checkpoint $! --leave-running -o copy.tar.zst"),
    ),
)
CONTAINER_EXAMPLES = (
    (
        "A container of Podman's, copied twice:",
        (
            "torpor setup",
            "torpor check web",
            "torpor checkpoint web -o web.tar.gz",
            "torpor restore web.tar.gz --name hello --copies 2",
        ),
    ),
)
REBOOT_EXAMPLES = (
    (
        "A job and a container outlive a reboot:",
        ("torpor setup --survive-reboot", "torpor survive counter web", "torpor reboot --dry-run", "torpor survive"),
    ),
)
CRIU_EXAMPLES = (
    (
        "A shell's job:",
        (
            "sleep 1000 < /dev/null > /dev/null 2>&1 &",
            "mkdir images",
            "criu dump -t $! -D images -o dump.log -v4 --shell-job",
            "criu restore -D images -o restore.log -v4 -d --shell-job",
        ),
    ),
)
_ABOUT = """\
torpor writes a process and everything below it into image files, and rebuilds it from them: here, after a reboot, or
elsewhere. The images are CRIU's; criu(8) and its tools read them.

A checkpoint that fails leaves the process running as before. A restore that fails leaves nothing behind.
"""
_NAMES = """\
A word of digits is a process or a job. Any other is looked up among the jobs and the containers of every engine that is
here, by name or by the beginning of an id: Podman, Docker, containerd, LXC, and the runtimes runc and crun alone. If it
means several things, nothing is done and they are listed (exit status 3). podman:NAME (docker, containerd, lxc, runc,
crun, job, pid), or --engine, says which. NAME@2 and NAME@TAG are checkpoints of the job NAME.

A container is checkpointed and restored by its engine's own command, which calls the criu that it finds: see setup
below. Options that are about containers only are passed on in the engine's words.
"""
_EXIT = """\
0 if all is done, 2 for a wrong command line, 3 for a name that means several things, 1 for other failures, 128 + N
after signal N. restore -w and run without -d end as the root process does.
"""
_CRIU_ABOUT = """\
The command has the words, configuration files, log lines and images of criu(8), as CRIU 4.2 has them, and another
engine behind them. An unknown option is a wrong command line.
"""
_CRIU_EXIT = """\
0 if all is done, 2 for a wrong command line, 1 for other failures, 128 + N after signal N. restore without -d ends
with the status of the restored root process.
"""


def pages() -> dict[str, str]:
    """All pages, by their places below a directory of manuals."""
    return {"man1/torpor.1": torpor(), "man8/torpor-criu.8": criu()}


def torpor() -> str:
    """The manual page torpor(1), as man(7) has it."""
    commands = commands_of_torpor()
    lines = [*_head("torpor", 1, "put running processes to sleep in files, and wake them again")]
    lines.append(".SH SYNOPSIS")
    for command in commands:
        lines += [".HP", f".B torpor {_safe(command.name)}", _safe(command.usage)]
    lines += [".SH DESCRIPTION", *_prose(_ABOUT), ".SH NAMES", *_prose(_NAMES), ".SH OPTIONS OF ALL COMMANDS"]
    lines += [".TP", r"\fB\-v\fR, \fB\-\-verbose\fR", "Say what is being done; it may stand anywhere."]
    lines += [".TP", r"\fB\-\-version\fR", "Say which version this is.", ".SH COMMANDS"]
    for command in commands:
        lines += _command(command)
    lines += [".SH EXAMPLES", *_examples((*EXAMPLES, *CONTAINER_EXAMPLES, *REBOOT_EXAMPLES))]
    lines += [".SH EXIT STATUS", *_prose(_EXIT)]
    lines += [".SH ENVIRONMENT", ".TP", ".B TORPOR_STATE", "Where jobs and their checkpoints are kept:"]
    lines += [_safe("/var/lib/torpor for root, ~/.local/state/torpor for anybody else, if this says nothing.")]
    lines += [".TP", ".B TORPOR_PODMAN, TORPOR_DOCKER, TORPOR_RUNC, TORPOR_CRUN, TORPOR_CTR"]
    lines += [_safe("The command of an engine with its first words, such as podman --root /srv/podman.")]
    lines += [".TP", ".B TORPOR_LIST_TIMEOUT", "How long an engine may take to list its containers, in seconds (20)."]
    lines += [".SH SEE ALSO", ".BR torpor\\-criu (8),", ".BR criu (8)"]
    return "\n".join(lines) + "\n"


def criu() -> str:
    """The manual page torpor-criu(8), as man(7) has it."""
    from torpor.cli.criu.options import HARMLESS, USED

    lines = [*_head("torpor-criu", 8, "torpor's criu command"), ".SH SYNOPSIS", ".B criu", r"\fICOMMAND\fR [options]"]
    lines += [".SH DESCRIPTION", *_prose(_CRIU_ABOUT), ".SH COMMANDS"]
    for command in commands_of_criu():
        lines += [".TP", f".B {_safe(command.name)}", _safe(command.purpose)]
    options = options_of_criu()
    for title, chosen in (
        ("OPTIONS", [option for option in options if option.group == USED]),
        ("ACCEPTED, WITH NOTHING TO CHANGE HERE", [option for option in options if option.group == HARMLESS]),
    ):
        lines.append(f".SH {title}")
        for option in chosen:
            lines += _option(option)
    lines += [".SH EXAMPLES", *_examples(CRIU_EXAMPLES), ".SH FILES"]
    lines += [".TP", ".I /etc/criu/default.conf, ~/.criu/default.conf"]
    lines += [
        _safe("And what CRIU_CONFIG_FILE or --config names: one option a line, without the dashes, its value after")
    ]
    lines += ["a space.", ".TP", ".I /etc/criu/runc.conf", "The same for what container runtimes ask for."]
    lines += [".SH EXIT STATUS", *_prose(_CRIU_EXIT), ".SH SEE ALSO", ".BR torpor (1)"]
    return "\n".join(lines) + "\n"


def _head(name: str, section: int, purpose: str) -> Iterator[str]:
    yield ".\\\" Made of torpor's tables of commands and options."
    yield f'.TH {name.upper()} {section} "" "torpor {__version__}"'
    yield ".SH NAME"
    yield f"{_safe(name)} \\- {_safe(purpose)}"


def _command(command: Command) -> Iterator[str]:
    yield f".SS torpor {_safe(command.name)}"
    yield from _prose(command.text or command.purpose)
    for name, text in command.arguments:
        yield from (".TP", f"\\fI{_safe(name)}\\fR", _safe(text or "a job"))
    group = ""
    for option in command.options:
        if option.names == ("-h", "--help") or option.long == "--verbose":
            continue
        if option.group != group:
            group = option.group
            yield from (".PP", f"{_safe(group[:1].upper() + group[1:])}:")
        yield from _option(option)


def _option(option: Option) -> Iterator[str]:
    value = f" \\fI{_safe(option.value)}\\fR" if option.value else ""
    yield ".TP"
    yield ", ".join(f"\\fB{_safe(name)}\\fR" for name in option.names) + value
    yield _safe(option.text)


def _examples(examples: tuple[tuple[str, tuple[str, ...]], ...]) -> Iterator[str]:
    for title, lines in examples:
        yield from (".PP", _safe(title), ".PP", ".RS 4", ".nf", *(_safe(line) for line in lines), ".fi", ".RE")


def _prose(text: str) -> Iterator[str]:
    for line in text.strip().splitlines():
        yield _safe(line) if line else ".PP"


def _safe(text: str) -> str:
    """*text* with nothing in it that means something to troff; a dash stays one that can be copied."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("%%", "%")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
