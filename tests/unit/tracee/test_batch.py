"""Batches: encoding, links between calls, decoding, errors."""

import errno
import struct

import pytest

from torpor.kernel.arch import loop, nr
from torpor.tracee.batch import Batch, RemoteCallError, RepeatedBatch

BASE = 0x10000


def words(memory: bytearray, index: int) -> tuple[int, ...]:
    """Number, flag, six arguments, result and two stores of a record."""
    found: tuple[int, ...] = loop.RECORD.unpack_from(memory, index * loop.RECORD_SIZE)
    return found


def finish(batch: Batch, memory: bytearray, *results: int) -> None:
    for index, value in enumerate(results):
        struct.pack_into("<q", memory, index * loop.RECORD_SIZE + loop.RESULT_OFFSET, value)
    batch.decode(memory)


def test_a_result_is_stored_into_a_later_argument() -> None:
    batch = Batch()
    fd = batch.call(nr.openat, 1, 2, 3)
    batch.call(nr.mmap, 0, 4096, 1, 2, fd, 0)
    batch.call(nr.close, fd)
    memory = batch.encode(BASE)
    assert words(memory, 0)[-2:] == (
        BASE + loop.RECORD_SIZE + loop.ARG_OFFSET + 4 * 8,
        BASE + 2 * loop.RECORD_SIZE + loop.ARG_OFFSET,
    )
    with pytest.raises(ValueError, match="twice"):
        batch.call(nr.close, fd)


def test_data_is_pointed_to_and_read_back() -> None:
    batch = Batch()
    room = batch.out(8)
    header = batch.pack("QQ", room, 8)
    batch.call(nr.readv, 0, header, 1)
    memory = batch.encode(BASE)
    at = words(memory, 0)[3] - BASE
    pointer, length = struct.unpack_from("<QQ", memory, at)
    assert length == 8
    memory[pointer - BASE : pointer - BASE + 8] = b"abcdefgh"
    finish(batch, memory, 8)
    assert room.bytes() == b"abcdefgh"


def test_a_failed_call_raises_with_its_name() -> None:
    batch = Batch()
    batch.call(nr.close, 9)
    done: list[int] = []
    batch.then(lambda: done.append(1))
    with pytest.raises(RemoteCallError, match=r"close\(0x9.*Bad file descriptor"):
        finish(batch, batch.encode(BASE), -errno.EBADF)
    assert not done


def test_a_call_that_may_fail_gives_its_errno() -> None:
    batch = Batch()
    result = batch.call(nr.close, 9, may_fail=True)
    done: list[int] = []
    batch.then(lambda: done.append(result.errno))
    finish(batch, batch.encode(BASE), -errno.EBADF)
    assert done == [errno.EBADF]


def test_negative_arguments_wrap() -> None:
    batch = Batch()
    batch.call(nr.mmap, -1)
    assert words(batch.encode(BASE), 0)[2] == (1 << 64) - 1


def test_large_results_are_no_errors() -> None:
    batch = Batch()
    address = batch.call(nr.mmap, 0)
    finish(batch, batch.encode(BASE), 0x7F0000000000)
    assert (address.value, address.errno) == (0x7F0000000000, 0)


def test_a_batch_of_several_keeps_the_answers_of_each() -> None:
    batch = RepeatedBatch()
    room = batch.out(8)
    result = batch.call(nr.read, 0, room, 8)
    done: list[tuple[int, bytes]] = []
    batch.then(lambda: done.append((result.value, room.bytes())))
    answers = []
    for number, content in ((3, b"abc"), (2, b"de")):
        memory = batch.encode(BASE)
        at = words(memory, 0)[3] - BASE
        assert memory[at : at + 8] == bytes(8)
        memory[at : at + number] = content
        finish(batch, memory, number)
        answers.append(batch.answers)
    assert not done
    for each in reversed(answers):
        batch.read(each)
    assert done == [(2, b"de" + bytes(6)), (3, b"abc" + bytes(5))]
    with pytest.raises(RemoteCallError, match="Bad file descriptor"):
        finish(batch, batch.encode(BASE), -errno.EBADF)
