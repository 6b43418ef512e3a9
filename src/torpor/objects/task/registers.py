"""General registers, TLS bases and the FPU's extended state.

Kernel view
    The general registers and the register set of all others, of the length that this CPU and kernel give; what they
    are is ``kernel/arch``'s.
Image
    ``objects/arch``'s, ``core``.
Restore
    The extended state, then the general registers as the very last step.
Limits
    A call that waits for a length of time starts over where the program has not asked how much is left; a few give
    EINTR: see ``restart`` of ``kernel/arch``.
"""

from __future__ import annotations

from torpor.images import messages as m
from torpor.kernel.arch import restart
from torpor.kernel.arch.regs import UserRegs
from torpor.objects.arch import core as image
from torpor.objects.model import DumpThread
from torpor.objects.task import signals
from torpor.tracee.thread import Thread


def dump(thread: DumpThread, met: UserRegs, xstate: bytes) -> None:
    """Fill in the image from the registers *met* (outside of any restartable sequence) and *xstate*.

    The thread's signals must be known: a handler that will run first decides what becomes of an interrupted call.
    """
    image.fill(thread.core, restart.outside(met, signals.next_handler_flags(thread)), xstate)


def restore_xstate(thread: Thread, core: m.core_entry) -> None:
    """Set the extended state."""
    thread.set_xstate(image.extended(core, thread.get_xstate()))


def restore_last(thread: Thread, core: m.core_entry) -> None:
    """Set the general registers, and what calls that were made since have lost of the others."""
    if image.is_lost_by_calls(core):
        restore_xstate(thread, core)
    thread.set_regs(image.general(core))
