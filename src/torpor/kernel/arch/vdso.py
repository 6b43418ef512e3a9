"""This machine's ``vdso``."""

from torpor.kernel.arch.x86_64.vdso import *  # noqa: F403
