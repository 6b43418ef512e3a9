"""Action scripts: programs of the user that are run at certain stages, as criu(8) describes them.

A script is run by ``sh -c`` with ``CRTOOLS_SCRIPT_ACTION`` (the stage), ``CRTOOLS_IMAGE_DIR`` and, where there is one,
``CRTOOLS_INIT_PID`` (the root's pid).  One that fails makes the dump or restore fail.
"""

from __future__ import annotations

import os

from torpor.base import log
from torpor.base.errors import ActionScriptError
from torpor.cli.criu.options import Options
from torpor.engine.options import Notify, nobody


def notifier(options: Options, client: Notify | None = None) -> Notify:
    """What the engine calls at each stage: the scripts, then the RPC *client*."""
    scripts, images_dir = tuple(options.action_script), options.images_dir
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
    pid = os.posix_spawnp("sh", ["sh", "-c", script], environment)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise ActionScriptError(f"action script {script} failed at {action} ({how})")
