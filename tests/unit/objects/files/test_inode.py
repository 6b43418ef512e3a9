"""Labels of deleted files, with SELinux played: what is written, and what is not."""

import os
from types import SimpleNamespace
from typing import cast

import pytest

from torpor.images import messages as m
from torpor.kernel import lsm
from torpor.kernel.idmap import IDENTITY
from torpor.objects.files import inode
from torpor.objects.files.socket.unix_name import name_of
from torpor.objects.session import RestoreContext

_OLD = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.mark.parametrize(
    ("active", "new_labels", "written"),
    [
        (lsm.SELINUX, {}, [_OLD]),
        (lsm.SELINUX, {"s0:c1,c2": "s0:c3"}, ["system_u:object_r:container_file_t:s0:c3"]),
        (lsm.SELINUX, None, []),
        (lsm.APPARMOR, {}, []),
    ],
    ids=["as it was", "changed", "not trusted", "another module"],
)
def test_a_deleted_file_gets_its_label(
    monkeypatch: pytest.MonkeyPatch, active: str, new_labels: dict[str, str] | None, written: list[str]
) -> None:
    labels: list[str] = []
    monkeypatch.setattr(lsm, "active", lambda: active)
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"a:b:made_t:s0\0")
    monkeypatch.setattr(os, "setxattr", lambda path, name, label: labels.append(label.decode().rstrip("\0")))
    context = cast(RestoreContext, SimpleNamespace(new_labels=new_labels))
    entry = m.torpor_inode()
    entry.xattr.add(name="security.selinux", value=_OLD.encode() + b"\0")
    inode.restore(entry, "/nowhere", "ghost-file-1.img", context)
    assert labels == written


def test_the_file_of_a_unix_socket_s_name_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "active", lambda: lsm.SELINUX)
    sk = m.unix_sk_entry(name=b"/run/socket\0")
    sk.torpor_file.xattr.add(name="user.of", value=b"a name")
    sk.torpor_file.xattr.add(name="security.selinux", value=_OLD.encode() + b"\0")
    changed = ("security.selinux", b"system_u:object_r:container_file_t:s0:c3\0")
    assert name_of(sk, IDENTITY, {"s0:c1,c2": "s0:c3"}).xattrs == (("user.of", b"a name"), changed)
    assert name_of(sk, IDENTITY, None).xattrs == (("user.of", b"a name"),)
