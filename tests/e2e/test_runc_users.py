"""Containers of other users: in a user namespace, and of a user that is not root, under runc."""

import os
from pathlib import Path

import pytest

from harness.runc import COUNTER, Container
from harness.skips import need_mounted_root

pytestmark = [pytest.mark.root, pytest.mark.real]
_COUNT = ["sh", "-c", COUNTER]
_UID, _GID = 100000, 200000


def _in_user_namespace(container: Container) -> None:
    """Its files belong to whom its root is outside."""
    linux = container.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = [{"containerID": 0, "hostID": _UID, "size": 65536}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": _GID, "size": 65536}]
    container.base.chmod(0o711)
    for path in (container.rootfs, *container.rootfs.rglob("*")):
        os.chown(path, _UID, _GID, follow_symlinks=False)


def _ids(container: Container) -> tuple[int, int]:
    info = os.stat(f"/proc/{container.pid}")
    return info.st_uid, info.st_gid


def test_a_user_namespace() -> None:
    need_mounted_root()
    with Container(_COUNT) as container:
        _in_user_namespace(container)
        container.run()
        for _ in range(2):
            before = container.wait_counting()
            container.checkpoint()
            container.restore()
            assert container.wait_counting() > before
            assert _ids(container) == (_UID, _GID)
            maps = Path(f"/proc/{container.pid}/uid_map").read_text(encoding="ascii").split()
            assert maps == ["0", str(_UID), "65536"]
        assert container.exec("readlink", "/proc/1/exe") == "/bin/busybox"


@pytest.mark.parametrize("has_user_namespace", [False, True])
def test_another_user(has_user_namespace: bool) -> None:
    with Container(_COUNT) as container:
        if has_user_namespace:
            need_mounted_root()
            _in_user_namespace(container)
        (container.rootfs / "tmp").chmod(0o777)
        container.config["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6]}
        container.config["process"]["capabilities"] = {}
        container.run()
        wanted = (_UID + 1000, _GID + 1001) if has_user_namespace else (1000, 1001)
        for _ in range(2):
            before = container.wait_counting()
            container.checkpoint()
            container.restore()
            assert container.wait_counting() > before
            assert _ids(container) == wanted
