"""This machine's ``trampoline``."""

from torpor.kernel.arch.x86_64.trampoline import *  # noqa: F403
