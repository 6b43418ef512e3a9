"""Kinds by name, magic and file name."""

from __future__ import annotations

import pytest

from torpor.images import kinds
from torpor.images._registry import message_class
from torpor.images.errors import ImageError

IDENTS: dict[str, int | str] = {"%u": 10, "%lu": 10, "%x": 0x1A, "%s": "dump"}


def test_every_kind_is_found_by_its_file_name() -> None:
    for kind in kinds.ALL:
        conversion = next((c for c in IDENTS if c in kind.file_pattern), "")
        ident = IDENTS.get(conversion)
        assert kinds.by_file_name(kind.file_name(ident)) == (kind, ident)
        assert kinds.by_name(kind.name) is kind
        assert kind.entry is None or message_class(kind.entry)


def test_names_are_told_apart() -> None:
    assert kinds.by_file_name("pagemap-shmem-5.img") == (kinds.SHMEM_PAGEMAP, 5)
    assert kinds.by_file_name("stats-dump") == (kinds.STATS, "dump")
    assert kinds.by_file_name("core-x.img") is None
    assert kinds.by_file_name("core-.img") is None
    assert kinds.by_magic(0x55053847) is kinds.CORE
    assert kinds.by_magic(1) is None


def test_wrong_ids_and_names_are_image_errors() -> None:
    for kind, ident in ((kinds.CORE, None), (kinds.CORE, "x"), (kinds.FILES, 3)):
        with pytest.raises(ImageError):
            kind.file_name(ident)
    with pytest.raises(ImageError):
        kinds.by_name("NONE_SUCH")
