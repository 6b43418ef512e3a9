"""This machine's ``xstate``."""

from torpor.kernel.arch.x86_64.xstate import *  # noqa: F403
