"""Services of systemd, as far as a user names one: UNIT.service is its main process and everything below it.

Not an engine: what systemd does about a service that has ended is systemd's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torpor.base.errors import TorporError, UsageError
from torpor.containers.commands import run

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
