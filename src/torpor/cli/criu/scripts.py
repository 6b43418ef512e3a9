"""Action scripts: programs of the user that are run at certain stages, as criu(8) describes them.

A script is executed as it is named, whatever is in its path, without arguments and without a shell between, unless it
does not say what runs it.  Its environment is ours with ``CRTOOLS_SCRIPT_ACTION`` (the stage), ``CRTOOLS_IMAGE_DIR``
(absolute) and, where there is one, ``CRTOOLS_INIT_PID`` (the root's pid).  If one fails, the dump or restore does.
"""

from __future__ import annotations

import errno
import os

from torpor.base import log
from torpor.base.errors import ActionScriptError
from torpor.cli.criu.options import Options
from torpor.engine.options import Notify, nobody


def notifier(options: Options, client: Notify | None = None) -> Notify:
    """What the engine calls at each stage: the scripts, then the RPC *client*."""
    scripts, images_dir = tuple(options.action_script), os.path.abspath(options.images_dir)
    if not scripts:
        return client or nobody

    def notify(action: str, pid: int) -> None:
        log.debug(f"Running {action} scripts")
        environment = dict(os.environ, CRTOOLS_SCRIPT_ACTION=action, CRTOOLS_IMAGE_DIR=images_dir)
        if pid:
            environment["CRTOOLS_INIT_PID"] = str(pid)
        for script in scripts:
            _run(script, action, environment)
        if client is not None:
            client(action, pid)

    return notify


def _run(script: str, action: str, environment: dict[str, str]) -> None:
    try:
        pid = _start(script, environment)
    except OSError as error:
        raise ActionScriptError(
            f"action script {script} cannot be run at {action}: {error.strerror}",
            hint="the path of a program, which must be executable; arguments belong into it",
        ) from error
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise ActionScriptError(f"action script {script} failed at {action} ({how})")


def _start(script: str, environment: dict[str, str]) -> int:
    try:
        return os.posix_spawnp(script, [script], environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # As execvp(3) does, and so CRIU: a text without a first line that names its interpreter is the shell's.
    return os.posix_spawn("/bin/sh", ["sh", script], environment)
