"""This machine's ``nr``."""

from torpor.kernel.arch.x86_64.nr import *  # noqa: F403
