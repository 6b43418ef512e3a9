import pytest

from torpor.images import messages as m
from torpor.kernel import lsm
from torpor.kernel.namespaces import CLONE_NEWPID, CLONE_NEWUSER
from torpor.objects.ns.mnt.filesystems import BY_NAME, TMPFS
from torpor.objects.ns.mnt.make import is_made_by_puppet, options_of, split_options

_LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.fixture(autouse=True)
def selinux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "active", lambda: lsm.SELINUX)


def test_commas_within_quotes_are_no_separators() -> None:
    assert split_options(f'rw,context="{_LABEL}",size=4k') == ["rw", f"context={_LABEL}", "size=4k"]
    assert split_options("") == []


def test_a_label_is_kept_or_replaced() -> None:
    entry = m.mnt_entry(fstype=TMPFS, options=f'context="{_LABEL}",size=4k', sb_flags=0)
    assert options_of(entry, "") == [("context", _LABEL), ("size", "4k")]
    assert options_of(entry, "a:b:c:s0:c3,c4") == [("context", "a:b:c:s0:c3,c4"), ("size", "4k")]


def test_no_label_is_added() -> None:
    assert options_of(m.mnt_entry(fstype=TMPFS, options="size=4k"), "a:b:c") == [("size", "4k")]


def test_what_says_labels_is_left_out_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = m.mnt_entry(fstype=TMPFS, options=f'seclabel,rootcontext="{_LABEL}",size=4k')
    assert options_of(entry, "") == [("rootcontext", _LABEL), ("size", "4k")]
    monkeypatch.setattr(lsm, "active", lambda: lsm.APPARMOR)
    assert options_of(entry, "") == [("size", "4k")]


def test_only_the_machines_devices_are_not_made_in_a_user_namespace() -> None:
    made = {name for name, kind in BY_NAME.items() if is_made_by_puppet(m.mnt_entry(fstype=kind.code), CLONE_NEWUSER)}
    assert set(BY_NAME) - made == {"devtmpfs"}
    made = {name for name, kind in BY_NAME.items() if is_made_by_puppet(m.mnt_entry(fstype=kind.code), CLONE_NEWPID)}
    assert made == {"proc"}
