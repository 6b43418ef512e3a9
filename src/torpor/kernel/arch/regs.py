"""This machine's ``regs``."""

from torpor.kernel.arch.x86_64.regs import *  # noqa: F403
