"""This machine's ``loop``."""

from torpor.kernel.arch.x86_64.loop import *  # noqa: F403
