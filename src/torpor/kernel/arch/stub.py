"""This machine's ``stub``."""

from torpor.kernel.arch.x86_64.stub import *  # noqa: F403
