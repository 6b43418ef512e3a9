"""The machine code's bytes are what the listings say."""

import subprocess
from pathlib import Path

import pytest

from harness.program import need
from torpor.kernel.arch import loop, stub


@pytest.mark.parametrize(("listing", "code"), [(loop.LISTING, loop.CODE), (stub.LISTING, stub.CODE)])
def test_the_bytes_are_the_listing(listing: str, code: bytes, tmp_path: Path) -> None:
    source, object_file, binary = tmp_path / "loop.s", tmp_path / "loop.o", tmp_path / "loop.bin"
    source.write_text(listing)
    subprocess.run([need("as"), "--64", "-o", str(object_file), str(source)], check=True)
    subprocess.run([need("objcopy"), "-O", "binary", "-j", ".text", str(object_file), str(binary)], check=True)
    assert binary.read_bytes() == code


def test_the_stub_has_its_call_where_it_says() -> None:
    assert stub.CODE[stub.SYSCALL_OFFSET :].startswith(bytes.fromhex("0f05"))


def test_a_record_has_ten_words() -> None:
    assert loop.RECORD_SIZE == 80
    packed = loop.RECORD.pack(1, 1, 2, 3, 4, 5, 6, 7, -8, 9, 10)
    assert packed[loop.RESULT_OFFSET : loop.RESULT_OFFSET + 8] == (-8).to_bytes(8, "little", signed=True)
    assert packed[loop.ARG_OFFSET] == 2


def test_the_loop_has_a_call_behind_the_records_where_it_says() -> None:
    assert loop.CODE[: loop.DONE_OFFSET].endswith(bytes.fromhex("b8270000000f05"))
