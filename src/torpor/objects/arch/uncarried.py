"""This machine's ``uncarried``."""

from torpor.objects.arch.x86_64.uncarried import *  # noqa: F403
