"""What images may ask for: looked at as a whole before anything is made.

Each refusal names the image, the field, and the option that would allow it.  What a name in an image may lead to is
checked where it is used; docs/internals/untrusted-images.md has the table of all fields.
"""

from __future__ import annotations

from torpor.base.errors import NotPermittedError
from torpor.engine.session import RestoreSession
from torpor.objects.model import RestoreThread
from torpor.objects.task import creds


def check(session: RestoreSession) -> None:
    """NotPermittedError for what the policy of the session does not allow."""
    capabilities = session.options.policy.capabilities
    if capabilities is not None:
        for process in session.everyone:
            for thread in process.threads:
                _check_capabilities(thread, capabilities)


def _check_capabilities(thread: RestoreThread, allowed: int) -> None:
    asked = creds.capabilities_of(thread.core) & ~allowed
    if asked:
        raise NotPermittedError(
            f"core-{thread.ns_tid}.img: creds: capabilities {asked:#x} are not the caller's to give",
            hint="restore as root",
        )
