"""This machine's ``core``."""

from torpor.objects.arch.x86_64.core import *  # noqa: F403
