"""Strings that are not UTF-8."""

from __future__ import annotations

from torpor.images import messages as m
from torpor.images.text import get_text, set_text


def test_any_file_name_passes_unchanged() -> None:
    fs = m.ext_mount_map()
    set_text(fs, "key", "caf\udce9")
    set_text(fs, "val", b"\xff" * 200)
    again = m.ext_mount_map.FromString(fs.SerializeToString())
    assert get_text(again.key) == "caf\udce9"
    assert get_text(again.val) == "\udcff" * 200
    assert b"caf\xe9" in again.SerializeToString()


def test_plain_text_and_repeated_fields() -> None:
    opts = m.criu_opts()
    set_text(opts, "root", "/a")
    set_text(opts, "external", "x")
    set_text(opts, "external", b"\xfe")
    assert get_text(opts.root) == "/a"
    assert [get_text(item) for item in opts.external] == ["x", "\udcfe"]
