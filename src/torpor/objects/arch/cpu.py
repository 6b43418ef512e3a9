"""This machine's ``cpu``."""

from torpor.objects.arch.x86_64.cpu import *  # noqa: F403
