"""This machine's ``sigframe``."""

from torpor.kernel.arch.x86_64.sigframe import *  # noqa: F403
