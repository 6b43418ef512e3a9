"""What lies in a POSIX message queue.

Kernel view
    Nobody can look at a message in place: it is taken out, the oldest of the highest priority first.  Put back in that
    order all lie as they lay.
Image
    ``torpor_mq_message``, in the order in which they come out.
Restore
    Sent in that order to the queue that ``mqueue`` has made.
Limits
    Somebody outside of the tree who has the queue may come between.

While a queue is empty its messages are in memory that two processes share: a child of ours, which moves them, and we.
Our death does not stop the child, and its death leaves the rest to us.
"""

from __future__ import annotations

import mmap
import os
import struct

from torpor.base.errors import TorporError
from torpor.images import messages as m
from torpor.kernel import errand, mqueue
from torpor.kernel.syscall import address_of

_COUNTS = struct.Struct("2Q")  # taken out, put back
_SLOT = struct.Struct("2Q")  # length, priority


def peek(fd: int, *, poke: bool = False) -> list[m.torpor_mq_message]:
    """The messages of the queue behind *fd*, which reads and writes without blocking, as they come out.

    *poke*: an empty queue gets a message for a moment, so that whoever is to be notified is.
    """
    limits = mqueue.attributes(fd)
    if not limits.n_messages and not poke:
        return []
    with _Drawer(fd, limits) as drawer:
        with errand.deaf():
            child = os.fork()
            if child == 0:
                _move(drawer)
        status = os.waitpid(child, 0)[1]
        drawer.put_back()
        if status:
            raise TorporError(f"the messages of a queue could not be read: its reader ended with {status}")
        return drawer.messages()


def _move(drawer: _Drawer) -> None:
    """In the child: take all out and put all back, whatever signals come."""
    code = 1
    try:
        os.setsid()
        if not drawer.is_empty:
            drawer.take_out()
            drawer.put_back()
        else:
            drawer.poke()
        code = 0
    finally:
        os._exit(code)


class _Drawer:
    """Where the messages lie meanwhile."""

    def __init__(self, fd: int, limits: mqueue.Attributes) -> None:
        self._fd = fd
        self._room = limits.message_size
        self._n_slots = limits.n_messages
        self._slots_at = _COUNTS.size
        self._data_at = self._slots_at + self._n_slots * _SLOT.size
        self._memory = mmap.mmap(-1, self._data_at + max(self._n_slots, 1) * self._room)
        with memoryview(self._memory) as view:
            self._address = address_of(view)

    def __enter__(self) -> _Drawer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._memory.close()

    @property
    def is_empty(self) -> bool:
        """Whether there are no messages."""
        return self._n_slots == 0

    def poke(self) -> None:
        """A message that comes and goes."""
        mqueue.send(self._fd, self._address, 0, 0)
        mqueue.receive(self._fd, self._address + _COUNTS.size, self._room, 0)

    def take_out(self) -> None:
        """All, as far as they are there."""
        for index in range(self._n_slots):
            slot = self._slots_at + index * _SLOT.size
            at = self._address + self._data_at + index * self._room
            try:
                length = mqueue.receive(self._fd, at, self._room, self._address + slot + 8)
            except BlockingIOError:
                return
            struct.pack_into("Q", self._memory, slot, length)
            struct.pack_into("Q", self._memory, 0, index + 1)

    def put_back(self) -> None:
        """Those that are not back yet."""
        taken, back = _COUNTS.unpack_from(self._memory)
        for index in range(back, taken):
            length, priority = self._slot(index)
            mqueue.send(self._fd, self._address + self._data_at + index * self._room, length, priority)
            struct.pack_into("Q", self._memory, 8, index + 1)

    def _slot(self, index: int) -> tuple[int, int]:
        length, priority = _SLOT.unpack_from(self._memory, self._slots_at + index * _SLOT.size)
        return length, priority

    def messages(self) -> list[m.torpor_mq_message]:
        """What was taken out."""
        found = []
        for index in range(_COUNTS.unpack_from(self._memory)[0]):
            length, priority = self._slot(index)
            start = self._data_at + index * self._room
            found.append(m.torpor_mq_message(priority=priority, data=self._memory[start : start + length]))
        return found


def fill(fd: int, queue: m.torpor_mqueue) -> None:
    """Put the messages of the image into the queue behind *fd*."""
    for message in queue.message:
        data = bytearray(message.data) or bytearray(1)
        mqueue.send(fd, address_of(data), len(message.data), message.priority)
