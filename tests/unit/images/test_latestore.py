"""The store that keeps small images back."""

from torpor.images.stores.late import LateStore
from torpor.images.stores.memory import MemStore


def test_small_images_are_written_when_flushed() -> None:
    below = MemStore()
    late = LateStore(below)
    with late.open_write("core-1.img") as stream:
        stream.write(b"one")
        stream.write(b"two")
    assert late.exists("core-1.img") and late.names() == ["core-1.img"] and not below.names()
    with late.open_read("core-1.img") as stream:
        assert stream.read() == b"onetwo"
    late.flush()
    with below.open_read("core-1.img") as stream:
        assert stream.read() == b"onetwo"
    assert late.names() == ["core-1.img"]


def test_an_image_that_grows_large_goes_through() -> None:
    below = MemStore()
    late = LateStore(below)
    piece = bytes(600_000)
    with late.open_write("ghost-file-1.img") as stream:
        for _ in range(3):
            stream.write(piece)
    with below.open_read("ghost-file-1.img") as stream:
        assert len(stream.read()) == 3 * len(piece)
    late.flush()
    assert late.names() == ["ghost-file-1.img"]
