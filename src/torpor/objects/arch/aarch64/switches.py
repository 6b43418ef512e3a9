"""Switches of a thread that only this machine has: none that is carried."""

from __future__ import annotations

from torpor.objects.arch.switch import Switch
from torpor.objects.model import DumpProcess, RestoreProcess
from torpor.tracee.batch import Batch

#: Of a thread.
THREAD_SWITCHES: tuple[Switch, ...] = ()


def dump_permission(process: DumpProcess, batch: Batch) -> None:
    """No registers here are to be asked for before they are used."""


def restore_permission(process: RestoreProcess, batch: Batch) -> None:
    """Likewise, none is to be asked for."""
