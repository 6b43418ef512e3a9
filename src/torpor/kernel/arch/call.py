"""This machine's ``call``."""

from torpor.kernel.arch.x86_64.call import *  # noqa: F403
