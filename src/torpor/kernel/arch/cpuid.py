"""This machine's ``cpuid``."""

from torpor.kernel.arch.x86_64.cpuid import *  # noqa: F403
