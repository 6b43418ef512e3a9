"""Units of systemd that save what is marked at shutdown and restore it at boot.

    torpor-restore.service   at boot, after networks and file systems, before anybody starts containers anew
    torpor-save.service      does nothing at boot; when it is stopped because the machine goes down, it saves
    *.scope.d, *.service.d   what is to be saved is stopped after that: containers of Podman and the processes of a
                             login are in scopes, which are stopped at once at shutdown, together with everything

Two, for systemd stops in the reverse order of the start: who restores comes before podman-restart.service, and who
saves has to come before its end, which is after its start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from torpor.base.errors import NotPermittedError, TorporError
from torpor.base.exchanging import exchange
from torpor.containers.commands import run
from torpor.containers.reboot import stored
from torpor.containers.systemd import is_here
from torpor.engine.jobs.places import state_directory

DIRECTORY = Path("/etc/systemd/system")
SAVE, RESTORE = "torpor-save.service", "torpor-restore.service"
TIMEOUT_S = 300
_MARK = "# Put here by `torpor setup --survive-reboot`, which takes it away with --undo."
#: What needs saving has to outlive the save: the first part of the names of scopes, and services.
_STOPPED_LATER = (
    "libpod-.scope.d", "session-.scope.d", "torpor-.scope.d", "user@.service.d", "machine-.slice.d", "user-.slice.d",
)  # fmt: skip
_DROP_IN = "torpor-save.conf"
#: So long may the end of what is not done in time take.
_ENDING_S = 60


def texts(command: Path, timeout_s: int) -> dict[str, str]:
    """The units, by their places below the directory of units.  *command*: torpor's."""
    state = str(state_directory())
    environment = f"Environment=TORPOR_STATE={state}\n" if os.environ.get("TORPOR_STATE") else ""
    common = f"Documentation=man:torpor(1)\nRequiresMountsFor={state} /var/lib/containers\n"
    units = {
        RESTORE: (
            f"{_MARK}\n[Unit]\nDescription=Restore what torpor saved at shutdown\n{common}"
            "Wants=network-online.target\n"
            "After=local-fs.target network-online.target dbus.service systemd-logind.service firewalld.service "
            "nftables.service\n"
            "Before=podman-restart.service podman-auto-update.service\n"
            "\n[Service]\nType=oneshot\n"
            f"ExecStart={command} survive --restore --timeout {timeout_s}\n{environment}"
            # What is restored is not this service's, whichever control group it has come to.
            f"KillMode=process\nTimeoutStartSec={timeout_s + _ENDING_S}\n"
            "\n[Install]\nWantedBy=multi-user.target\n"
        ),
        SAVE: (
            f"{_MARK}\n[Unit]\nDescription=Save jobs and containers at shutdown\n{common}"
            f"After={RESTORE} local-fs.target network.target network-online.target dbus.service systemd-logind.service "
            "systemd-user-sessions.service firewalld.service nftables.service podman.service podman-restart.service "
            "docker.service containerd.service machine.slice user.slice\n"
            "\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
            f"ExecStop={command} survive --save --at-shutdown --timeout {timeout_s}\n{environment}"
            f"KillMode=mixed\nTimeoutStopSec={timeout_s + _ENDING_S}\n"
            "\n[Install]\nWantedBy=multi-user.target\n"
        ),
    }  # fmt: skip
    later = f"{_MARK}\n[Unit]\nBefore={SAVE}\n"
    return units | {f"{place}/{_DROP_IN}": later for place in _STOPPED_LATER}


def install(command: Path, timeout_s: int, directory: Path = DIRECTORY) -> bool:
    """Put the units there and switch them on; whether anything was changed.

    TorporError where another's file is in the way; NotPermittedError.
    """
    wanted = texts(command, timeout_s)
    for place in wanted:
        if _is_others(directory / place):
            raise TorporError(f"{directory / place} is there already and is not torpor's", hint="move it away")
    if not is_here() and directory == DIRECTORY:
        raise TorporError(
            "systemd is not init here: nothing would call torpor", hint="torpor survive --save, --restore"
        )
    changed = [place for place, text in wanted.items() if _text(directory / place) != text]
    try:
        for place in changed:
            (directory / place).parent.mkdir(parents=True, exist_ok=True)
            exchange(directory / place, wanted[place].encode())
    except PermissionError as error:
        raise NotPermittedError(f"{error.filename}: {error.strerror}", hint="run as root") from None
    if directory == DIRECTORY:
        stored.directory().mkdir(mode=0o700, parents=True, exist_ok=True)
        run("systemctl", "daemon-reload", timeout_s=60)
        run("systemctl", "enable", "--quiet", SAVE, RESTORE, timeout_s=60)
        run("systemctl", "start", SAVE, timeout_s=60)
    return bool(changed)


def remove(directory: Path = DIRECTORY) -> list[Path]:
    """Take them away again; those that there were.  Nothing is saved by that."""
    found = [path for path in _ours(directory)]
    if not found:
        return []
    try:
        if directory == DIRECTORY and is_here():
            run("systemctl", "disable", "--quiet", "--now", SAVE, RESTORE, timeout_s=120)
        for path in found:
            path.unlink()
            if path.name == _DROP_IN and not any(path.parent.iterdir()):
                path.parent.rmdir()
    except PermissionError as error:
        raise NotPermittedError(f"{error.filename}: {error.strerror}", hint="run as root") from None
    if directory == DIRECTORY and is_here():
        run("systemctl", "daemon-reload", timeout_s=60)
    return found


def are_there(directory: Path = DIRECTORY) -> bool:
    """Whether what is marked is going to be saved and restored."""
    return all(_MARK in _text(directory / place) for place in (SAVE, RESTORE))


def _ours(directory: Path) -> Iterator[Path]:
    for place in (SAVE, RESTORE, *(f"{each}/{_DROP_IN}" for each in _STOPPED_LATER)):
        if _MARK in _text(directory / place):
            yield directory / place


def _is_others(path: Path) -> bool:
    return os.path.lexists(path) and _MARK not in _text(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() and not path.is_symlink() else ""
    except OSError:
        return ""
