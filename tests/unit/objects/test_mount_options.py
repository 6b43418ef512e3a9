from torpor.images import messages as m
from torpor.objects.ns.mnt.filesystems import TMPFS
from torpor.objects.ns.mnt.make import options_of, split_options

_LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


def test_commas_within_quotes_are_no_separators() -> None:
    assert split_options(f'rw,context="{_LABEL}",size=4k') == ["rw", f"context={_LABEL}", "size=4k"]
    assert split_options("") == []


def test_a_label_is_kept_or_replaced() -> None:
    entry = m.mnt_entry(fstype=TMPFS, options=f'context="{_LABEL}",size=4k', sb_flags=0)
    assert options_of(entry, "") == [("context", _LABEL), ("size", "4k")]
    assert options_of(entry, "a:b:c:s0:c3,c4") == [("context", "a:b:c:s0:c3,c4"), ("size", "4k")]


def test_no_label_is_added() -> None:
    assert options_of(m.mnt_entry(fstype=TMPFS, options="size=4k"), "a:b:c") == [("size", "4k")]
