"""A batch of system calls to be made by another task, and its results.

``call`` adds one; arguments are numbers, results of earlier calls of the batch (stored by the loop while it runs), or
places in the batch's own data.  Nothing happens until a :class:`~torpor.tracee.remote.Runner` runs it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from torpor.base.errors import KernelError
from torpor.kernel.arch import loop, nr

_MASK = (1 << 64) - 1
_NOT_RUN = -4096
_WORD = 8
_RECORD_WORDS = loop.RECORD_SIZE // _WORD
_RESULT = loop.RESULT_OFFSET // _WORD
_FIRST_STORE = _RESULT + 1
_STORES = 2
#: What follows n arguments in a record: the arguments that are not given, the result, no stores.
_TAILS = [[0] * (6 - n) + [_NOT_RUN & (1 << 64) - 1, 0, 0] for n in range(7)]
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
    """Calls in the order in which they will be made.

    Records are kept as the words that the loop reads, so that a batch of thousands is encoded by one copy; only what
    points into the batch is filled in when the address is known.
    """

    __slots__ = ("_after", "_data_args", "_fixups", "_stores", "_words", "payload", "results")

    def __init__(self) -> None:
        self.payload = bytearray()
        self.results: Sequence[int] = ()
        self._words: list[int] = []
        self._data_args: list[tuple[int, Data]] = []
        self._stores: dict[int, list[int]] = {}
        self._fixups: list[tuple[int, Data]] = []
        self._after: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._words) // _RECORD_WORDS

    @property
    def size(self) -> int:
        """Bytes of scratch memory that a run needs."""
        return len(self._words) * _WORD + len(self.payload) + _ALIGN

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
        words = self._words
        at = len(words)
        words.append((number & 0xFFFFFFFF) | may_fail << 32)
        for arg in args:
            if type(arg) is int:
                words.append(arg & _MASK)
            else:
                self._refer(arg)
        words.extend(_TAILS[len(args)])
        return Result(self, at // _RECORD_WORDS)

    def end(self, number: int, *args: Arg) -> None:
        """Add a last call, from which nobody comes back."""
        self._words[self.call(number, *args).index * _RECORD_WORDS + _RESULT] = 0

    def _refer(self, arg: Arg) -> None:
        """Add an argument that is known only when the batch runs, or a number of some other type."""
        if isinstance(arg, Data):
            self._data_args.append((len(self._words), arg))
        elif isinstance(arg, Result):
            targets = self._stores.setdefault(arg.index, [])
            if len(targets) == _STORES:
                raise ValueError("a result can be used twice in a batch at most")
            targets.append(len(self._words))
        self._words.append(0 if isinstance(arg, (Data, Result)) else int(arg) & _MASK)

    def then(self, action: Callable[[], None]) -> None:
        """Do *action* once the batch has run well."""
        self._after.append(action)

    def encode(self, base: int) -> bytearray:
        """Records and data for scratch memory at *base* (16-byte aligned)."""
        words = self._words
        payload_at = base + len(words) * _WORD
        for offset, target in self._fixups:
            struct.pack_into("<Q", self.payload, offset, payload_at + target.offset)
        for index, data in self._data_args:
            words[index] = payload_at + data.offset
        for record, targets in self._stores.items():
            for position, index in enumerate(targets):
                words[record * _RECORD_WORDS + _FIRST_STORE + position] = base + index * _WORD
        return bytearray(struct.pack(f"{len(words)}Q", *words) + self.payload)

    def has_ended(self, memory: bytes | bytearray) -> bool:
        """Whether the loop is through with the records in *memory*: the last has a result, or one failed."""
        results = self._results(memory)
        if results[-1] != _NOT_RUN:
            return True
        at = results.index(_NOT_RUN) - 1
        return at >= 0 and -_ERRNO_MAX <= results[at] < 0 and not self._words[at * _RECORD_WORDS] >> 32

    def results_in(self, memory: bytes | bytearray) -> list[int]:
        """The results in *memory* of the calls that have been made."""
        results = self._results(memory)
        return results[: results.index(_NOT_RUN)] if _NOT_RUN in results else results

    def _results(self, memory: bytes | bytearray) -> list[int]:
        return memoryview(memory)[: len(self._words) * _WORD].cast("q")[_RESULT::_RECORD_WORDS].tolist()

    def decode(self, memory: bytes | bytearray) -> None:
        """Take results and data from the scratch memory after a run; RemoteCallError where a call failed."""
        length = len(self._words) * _WORD
        self.results = self._results(memory)
        self.payload[:] = memoryview(memory)[length : length + len(self.payload)]
        if min(self.results) < 0:
            self._raise_failed(memory, self.results)
        for action in self._after:
            action()

    def _raise_failed(self, memory: bytes | bytearray, results: Sequence[int]) -> None:
        for index, value in enumerate(results):
            head = self._words[index * _RECORD_WORDS]
            if value == _NOT_RUN or (-_ERRNO_MAX <= value < 0 and not head >> 32):
                args = struct.unpack_from("<6Q", memory, index * loop.RECORD_SIZE + loop.ARG_OFFSET)
                raise RemoteCallError(head & 0xFFFFFFFF, args, -value if value != _NOT_RUN else 0)


class RepeatedBatch(Batch):
    """Calls that one thread makes after the other.  What each has answered is kept, for a time when there is any."""

    __slots__ = ("_encoded", "answers")

    def __init__(self) -> None:
        super().__init__()
        self._encoded: tuple[int, bytes] = (0, b"")
        #: What ``read`` takes, of the last run.
        self.answers: bytes | bytearray = b""

    def encode(self, base: int) -> bytearray:
        """As for any batch; at the same place as before, by a copy."""
        if self._encoded[0] != base:
            self._encoded = (base, bytes(super().encode(base)))
        return bytearray(self._encoded[1])

    def decode(self, memory: bytes | bytearray) -> None:
        """RemoteCallError where a call failed; what was left for after the run is not done yet."""
        if min(self._results(memory)) < 0:
            self._raise_failed(memory, self._results(memory))
        self.answers = memory

    def read(self, answers: bytes | bytearray) -> None:
        """Have results and data be those of *answers*, and do what was left for after the run."""
        super().decode(answers)


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
