"""This machine's ``switches``."""

from torpor.objects.arch.x86_64.switches import *  # noqa: F403
