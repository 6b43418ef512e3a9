"""Which container a process is in, by what its control groups are called."""

from pathlib import Path

import pytest

from torpor.containers.membership import Inside, container_of, refusal

_ID = "71847b16a9fb801b6a5f32e9c20b3ed05ff28486cade5a8410e8ffcc7f880d1c"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (f"/machine.slice/libpod-{_ID}.scope", Inside("podman", _ID)),
        (f"/machine.slice/libpod-{_ID}.scope/container", Inside("podman", _ID)),
        (f"/machine.slice/libpod-conmon-{_ID}.scope", Inside("podman", _ID)),
        # Of quadlet, which has it in the group of its unit.
        (f"/system.slice/web.service/libpod-payload-{_ID}", Inside("podman", _ID)),
        (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{_ID}.scope", Inside("podman", _ID, "1000")),
        (f"/system.slice/docker-{_ID}.scope", Inside("docker", _ID)),
        ("/system.slice/web.service", None),
    ],
)
def test_the_group_tells(path: str, found: Inside | None, tmp_path: Path) -> None:
    (tmp_path / "77").write_text(f"0::{path}\n")
    (tmp_path / "self").write_text("0::/system.slice/ssh.service\n")
    assert container_of(77, f"{tmp_path}/{{}}") == found


def test_one_without_root_is_refused_by_its_user() -> None:
    told = refusal(77, Inside("podman", _ID, "1000")).describe()
    assert "that user 1000 runs by podman without root, and podman checkpoints none of those" in told
