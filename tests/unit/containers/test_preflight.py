"""The order that a runtime would give for a container."""

import json
import os
from pathlib import Path

import pytest

from torpor.cli.criu.dump import policies
from torpor.cli.criu.parse import parse
from torpor.containers.model import Runtime
from torpor.containers.preflight import order_for

CONFIG = {
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/proc", "type": "proc"},
        {"destination": "/etc/hosts", "type": "bind"},
        {"destination": "/data", "type": "none", "options": ["rbind", "rw"]},
    ],
    "linux": {
        "maskedPaths": ["/proc/kcore"],
        "devices": [{"path": "/dev/fuse"}],
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}],
    },
}


def test_what_runc_would_say(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    order = order_for(os.getpid(), Runtime("runc", config))
    told = policies(parse(list(order.words))[0])
    network = os.stat("/proc/self/ns/net").st_ino
    assert told.external == (
        "mnt[/etc/hosts]:/etc/hosts",
        "mnt[/data]:/data",
        "mnt[/proc/kcore]:/proc/kcore",
        "mnt[/dev/fuse]:/dev/fuse",
        f"net[{network}]:extRootNetNS",
    )
    assert told.mounts.root == str(tmp_path / "rootfs") and told.terminals.orphan_pts_master
    assert order.config_file == "/etc/criu/runc.conf"


@pytest.mark.parametrize(("chosen", "file"), [("/x.conf", "/x.conf"), ("", ""), (7, "/etc/criu/runc.conf")])
def test_the_annotation_names_another_file_of_options(tmp_path: Path, chosen: object, file: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"annotations": {"org.criu.config": chosen}}))
    assert order_for(os.getpid(), Runtime("runc", config)).config_file == file


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"mounts": 3, "linux": [], "root": 1, "annotations": []}', "[" * 90000]
)
def test_a_configuration_of_another_form_is_none(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(text)
    for runtime in (Runtime("runc", config), Runtime("lxc", None), Runtime("runc", tmp_path / "none")):
        assert not [word for word in order_for(os.getpid(), runtime).words if word.startswith("--external")]


def test_an_older_crun_names_no_file_of_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, crun = tmp_path / "config.json", tmp_path / "crun"
    config.write_text(json.dumps({"annotations": {"org.criu.config": "/x.conf"}}))
    crun.write_bytes(b"\x7fELF libcriu.so.2\0")
    crun.chmod(0o755)
    monkeypatch.setenv("TORPOR_CRUN", str(crun))
    assert order_for(os.getpid(), Runtime("crun", config)).config_file == ""
    crun.write_bytes(b"\x7fELF /etc/criu/crun.conf\0")
    assert order_for(os.getpid(), Runtime("crun", config)).config_file == "/x.conf"
