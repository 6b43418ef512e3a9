"""The engine as on a machine with SELinux: python confined.py LABEL COMMAND...

No security module need be active.  What the kernel and its policy would say is played: tasks have the context TARGET,
we have LABEL, and nobody may send himself a signal.  Code is not mapped in anonymous memory then, threads come last,
and their ids are chosen from outside.  Nothing can be written to /proc/PID/attr, so what would be is left out.
"""

import sys
from pathlib import Path

TARGET = "system_u:system_r:server_t:s0"
ENGINE = "unconfined_u:unconfined_r:unconfined_t:s0"


def play(own: str) -> None:
    """Have this process see such a machine."""
    from torpor.kernel import lsm
    from torpor.objects.task import lsm as labels

    def answer(value: object) -> object:
        return lambda *args: value

    for name, value in {
        "active": lsm.SELINUX,
        "own_label": own,
        "allows": False,
        "is_enforcing": False,
        "is_known": True,
        "read_file_label": "",
    }.items():
        setattr(lsm, name, answer(value))
    lsm.read_label = lambda pid, tid, name: TARGET if name == "current" else ""
    labels._to_write = answer([])  # type: ignore[assignment]


def engine(own: str = ENGINE) -> list[str]:
    """The `criu` command there, with that context of its own."""
    return [sys.executable, str(Path(__file__)), own]


if __name__ == "__main__":
    play(sys.argv.pop(1))
    from torpor.cli.criu.main import command

    command()
