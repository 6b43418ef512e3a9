"""What we ourselves must be allowed, asked before anything is done to anybody."""

from __future__ import annotations

import os

from torpor.base.errors import NotPermittedError
from torpor.base.ids import Pid
from torpor.engine.restore.session import RestoreSession
from torpor.kernel import namespaces as ns
from torpor.kernel.capabilities import names
from torpor.kernel.procfs.status import read_status
from torpor.objects.task import creds

_CAP_SYS_ADMIN = 1 << 21
#: Descriptors that we have besides those of files in the images.
_OTHERS = 32


def check_restore(session: RestoreSession) -> None:
    """NotPermittedError where the tree has namespaces of its own and we may not make any, or what we have not."""
    flags = session.root_clone_flags
    _check_descriptors(session)
    if not flags & ns.CLONE_NEWUSER and not any(each.kind == "user" for each in session.options.join_ns):
        _check_capabilities(session)
    if not flags or flags & ns.CLONE_NEWUSER or read_status(Pid(os.getpid())).cap_effective & _CAP_SYS_ADMIN:
        return
    raise NotPermittedError("a restore into namespaces of its own needs CAP_SYS_ADMIN", hint="run it as root")


def _check_descriptors(session: RestoreSession) -> None:
    """Have a limit on descriptors that is high enough: we open all files, and each process has its highest one."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    highest = max((entry.fd for entries in session.descriptors.values() for entry in entries), default=0)
    needed = max(highest + 1, len(session.context.files.entries) + _OTHERS)
    wanted = 2 * len(session.context.files.entries) + len(session.everyone) + highest + _OTHERS
    for number in (wanted, needed):
        if number <= hard:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
        except (ValueError, OSError):
            continue
        return
    raise NotPermittedError(
        f"the tree needs {needed} descriptors, and RLIMIT_NOFILE allows torpor {hard}",
        hint=f"raise the hard limit (ulimit -Hn {needed}), or give torpor CAP_SYS_RESOURCE",
    )


def _check_capabilities(session: RestoreSession) -> None:
    """NotPermittedError for capabilities that only somebody who has them can give."""
    ours = read_status(Pid(os.getpid())).cap_permitted
    for thread in session.iter_threads():
        missing = creds.permitted_of(thread.core) & ~ours
        if missing:
            raise NotPermittedError(
                f"pid {thread.ns_tid} has {names(missing)}, and torpor has not",
                hint="restore with it, as root of the host",
            )
