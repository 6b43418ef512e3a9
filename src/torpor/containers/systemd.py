"""Services of systemd, as far as a user names one: UNIT.service is its main process and everything below it.

Not an engine: what systemd does about a service that has ended is systemd's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from torpor.base.errors import TorporError, UsageError
from torpor.containers.commands import command_of, run

SUFFIX = ".service"
_ASKED = ("LoadState", "ActiveState", "MainPID", "Restart")


@dataclass(frozen=True, slots=True)
class Service:
    """``pid`` is its main process; ``restart`` is systemd.service(5)'s word for when it is started anew."""

    name: str
    pid: int
    restart: str

    def insist_it_stays_ended(self) -> None:
        """UsageError if systemd would start it anew as soon as it has been put to sleep."""
        if self.restart != "no":
            raise UsageError(
                f"{self.name}: systemd starts it anew when it has ended (Restart={self.restart})",
                hint="--leave-running, or `systemctl edit --runtime` it to Restart=no for as long as it sleeps",
            )


def find(name: str) -> Service:
    """The running service of this name.  EngineError where no systemd answers, TorporError if it does not run."""
    said = run("systemctl", "show", f"--property={','.join(_ASKED)}", "--", name, timeout_s=30)
    found = dict(line.partition("=")[::2] for line in said.splitlines())
    state, pid = found.get("ActiveState", ""), found.get("MainPID", "0")
    if found.get("LoadState") != "loaded":
        raise TorporError(f"there is no unit {name}", hint="`systemctl list-units --type=service` lists what there is")
    if not pid.isdigit() or int(pid) == 0:
        raise TorporError(f"{name} has no main process ({state})", hint=f"`systemctl status {name}` shows what it does")
    return Service(name, int(pid), found.get("Restart", "no"))


def is_here() -> bool:
    """Whether systemd is this machine's init (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system") and bool(command_of("systemctl"))


def scope_of(name: str) -> list[str]:
    """Words before a command line that has a scope of its own, torpor-NAME.scope; none without systemd."""
    words = command_of("systemd-run") if is_here() else []
    return [*words, "--scope", "--quiet", "--collect", f"--unit=torpor-{name}.scope", "--"] if words else []


def is_going_down() -> bool:
    """Whether the machine is: a unit that is only stopped or restarted is no reason to put anything to sleep."""
    return run("systemctl", "show", "--property=SystemState", "--value", timeout_s=30).strip() == "stopping"
