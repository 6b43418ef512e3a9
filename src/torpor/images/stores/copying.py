"""One set from a store into another."""

from __future__ import annotations

from torpor.base.records import replace
from torpor.images import kinds, manifest
from torpor.images.errors import ImageError
from torpor.images.store import ImageStore

_CHUNK = 1 << 20


def copy(source: ImageStore, target: ImageStore) -> None:
    """Copy the whole set and commit it.  ImageError, StoreError."""
    if source.parent() is not None:
        raise ImageError(f"{source.path}: its memory lies in part in another checkpoint", hint="keep it as a directory")
    made = manifest.load(source)
    names = [name for name in source.names() if name != manifest.NAME]
    inventory = kinds.INVENTORY.file_name()
    for name in sorted(names, key=lambda name: (name == inventory, source.size_of(name), name)):
        _copy_one(source, target, name)
    target.commit(replace(made, files={}) if made is not None else None)


def _copy_one(source: ImageStore, target: ImageStore, name: str) -> None:
    n_bytes = source.size_of(name)
    writer = target.pages_writer(name, n_bytes) if name.startswith("pages-") else None
    if writer is None:
        with source.open_read(name) as stream, target.open_write(name) as out:
            while data := stream.read(_CHUNK):
                out.write(data)
        return
    reader = source.pages_reader(name)
    try:
        block = memoryview(bytearray(_CHUNK))
        for at in range(0, n_bytes, _CHUNK):
            piece = block[: min(_CHUNK, n_bytes - at)]
            reader.read_at(at, piece)
            writer.append([piece])
    finally:
        reader.close()
        writer.close()
