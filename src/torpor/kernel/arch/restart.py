"""This machine's ``restart``."""

from torpor.kernel.arch.x86_64.restart import *  # noqa: F403
