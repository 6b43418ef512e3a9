"""A batch of system calls to be made by another task, and its results.

``call`` adds one; arguments are numbers, results of earlier calls of the batch (stored by the loop while it runs), or
places in the batch's own data.  Nothing happens until a :class:`~torpor.tracee.remote.Runner` runs it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from torpor.base.errors import KernelError
from torpor.kernel.arch import loop, nr

_MASK = (1 << 64) - 1
_NOT_RUN = -4096
_ERRNO_MAX = 4095
_ALIGN = 16


class Data:
    """Bytes in the batch that a call can point to; after the run, what the calls left there."""

    __slots__ = ("_batch", "offset", "size")

    def __init__(self, batch: Batch, offset: int, size: int) -> None:
        self._batch = batch
        self.offset = offset
        self.size = size

    def bytes(self) -> bytes:
        """The content as it is now."""
        return bytes(self._batch.payload[self.offset : self.offset + self.size])


class Result:
    """What a call gave."""

    __slots__ = ("_batch", "index")

    def __init__(self, batch: Batch, index: int) -> None:
        self._batch = batch
        self.index = index

    @property
    def value(self) -> int:
        """The raw result: a negative errno where the call may fail and did."""
        return self._batch.results[self.index]

    @property
    def errno(self) -> int:
        """0, or the errno of a call that failed."""
        value = self.value
        return -value if -_ERRNO_MAX <= value < 0 else 0


Arg = int | Result | Data


class RemoteCallError(KernelError):
    """A call that may not fail did, in the target."""

    def __init__(self, number: int, args: tuple[int, ...], errno: int) -> None:
        shown = ", ".join(f"{value & _MASK:#x}" for value in args)
        super().__init__(f"{name_of(number)}({shown}) inside the target", errno)
        self.number = number


class Batch:
    """Calls in the order in which they will be made."""

    __slots__ = ("_after", "_args", "_fixups", "_stores", "may_fail", "numbers", "payload", "results")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.may_fail: list[bool] = []
        self.payload = bytearray()
        self.results: list[int] = []
        self._args: list[tuple[Arg, ...]] = []
        self._stores: dict[int, list[tuple[int, int]]] = {}
        self._fixups: list[tuple[int, Data]] = []
        self._after: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def size(self) -> int:
        """Bytes of scratch memory that a run needs."""
        return len(self.numbers) * loop.RECORD_SIZE + len(self.payload) + _ALIGN

    def data(self, content: bytes | bytearray) -> Data:
        """Place *content* in the batch."""
        self.payload += bytes(-len(self.payload) % _ALIGN)
        offset = len(self.payload)
        self.payload += content
        return Data(self, offset, len(content))

    def path(self, text: str) -> Data:
        """Place a NUL-terminated string (surrogateescape)."""
        return self.data(text.encode(errors="surrogateescape") + b"\0")

    def out(self, size: int) -> Data:
        """Room for *size* bytes that a call will fill."""
        return self.data(bytes(size))

    def pack(self, layout: str, *values: int | Data) -> Data:
        """A structure (format as in :mod:`struct`, ``Q`` for pointers) whose members may point into the batch."""
        plain = [0 if isinstance(value, Data) else value for value in values]
        place = self.data(struct.pack(layout, *plain))
        for index, value in enumerate(values):
            if isinstance(value, Data):
                prefix = struct.calcsize(_members(layout, index) + "0Q")
                self._fixups.append((place.offset + prefix, value))
        return place

    def call(self, number: int, *args: Arg, may_fail: bool = False) -> Result:
        """Add a call.  Unless it *may_fail*, a failure ends the batch there and ``run`` raises."""
        index = len(self.numbers)
        for position, arg in enumerate(args):
            if isinstance(arg, Result):
                targets = self._stores.setdefault(arg.index, [])
                if len(targets) == 2:
                    raise ValueError("a result can be used twice in a batch at most")
                targets.append((index, position))
        self.numbers.append(number)
        self.may_fail.append(may_fail)
        self._args.append(args)
        return Result(self, index)

    def then(self, action: Callable[[], None]) -> None:
        """Do *action* once the batch has run well."""
        self._after.append(action)

    def encode(self, base: int) -> bytearray:
        """Records and data for scratch memory at *base* (16-byte aligned)."""
        records_size = len(self.numbers) * loop.RECORD_SIZE
        payload_at = base + records_size + (-records_size % _ALIGN)
        for offset, target in self._fixups:
            struct.pack_into("<Q", self.payload, offset, payload_at + target.offset)
        out = bytearray(payload_at - base)
        for index, number in enumerate(self.numbers):
            words = [self._word(arg, payload_at) for arg in self._args[index]]
            words += [0] * (6 - len(words))
            stores = [
                base + to * loop.RECORD_SIZE + loop.ARG_OFFSET + 8 * position
                for to, position in self._stores.get(index, ())
            ]
            stores += [0] * (2 - len(stores))
            loop.RECORD.pack_into(
                out, index * loop.RECORD_SIZE, number & 0xFFFFFFFF, self.may_fail[index], *words, _NOT_RUN, *stores
            )
        out += self.payload
        return out

    def decode(self, memory: bytes | bytearray) -> None:
        """Take results and data from the scratch memory after a run; RemoteCallError where a call failed."""
        size = loop.RECORD_SIZE
        self.results = [
            int.from_bytes(memory[at : at + 8], "little", signed=True)
            for at in range(loop.RESULT_OFFSET, len(self.numbers) * size, size)
        ]
        start = len(self.numbers) * size + (-len(self.numbers) * size % _ALIGN)
        self.payload[:] = memory[start : start + len(self.payload)]
        for index, value in enumerate(self.results):
            if value == _NOT_RUN or (-_ERRNO_MAX <= value < 0 and not self.may_fail[index]):
                at = index * size + loop.ARG_OFFSET
                args = struct.unpack_from("<6Q", memory, at)
                raise RemoteCallError(self.numbers[index], args, -value if value != _NOT_RUN else 0)
        for action in self._after:
            action()

    def _word(self, arg: Arg, payload_at: int) -> int:
        if isinstance(arg, Data):
            return payload_at + arg.offset
        return 0 if isinstance(arg, Result) else arg & _MASK


def name_of(number: int) -> str:
    """The system call's name."""
    for name, value in vars(nr).items():
        if value == number and not name.startswith("__"):
            return name
    return f"syscall {number}"


def _members(layout: str, count: int) -> str:
    """The format of the first *count* members; a layout here has no repeat counts."""
    order = layout[0] if layout[0] in "<=@" else ""
    return order + layout[len(order) :].replace(" ", "")[:count]
