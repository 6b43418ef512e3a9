"""Which kernel kexec is told, and what is in its way, on a machine that is a directory; what is loaded is unloaded."""

import os
from pathlib import Path

import pytest

from torpor.base.errors import EngineError, RefusedError, TorporError
from torpor.containers.reboot import jump, units


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with one kernel, as Debian lays it out, and kexec."""
    for place, text in {
        "boot/vmlinuz-6.12.1": "", "boot/initrd.img-6.12.1": "", "sys/kernel/kexec_loaded": "0\n",
        "proc/sys/kernel/kexec_load_disabled": "0\n",
        "proc/cmdline": "BOOT_IMAGE=/vmlinuz-6.1 root=/dev/vda rw initrd=x quiet\n",
        "sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
    }.items():  # fmt: skip
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    (tmp_path / "lib/modules/6.12.1").mkdir(parents=True)
    return tmp_path


def test_a_kernel_by_its_version(root: Path) -> None:
    kernel = jump.kernel_called("6.12.1", None, None, root)
    assert kernel == jump.Kernel(
        root / "boot/vmlinuz-6.12.1", root / "boot/initrd.img-6.12.1", "root=/dev/vda rw quiet"
    )


def test_a_kernel_by_its_file_and_what_comes_with_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "vmlinuz-7").touch()
    kernel = jump.kernel_called(str(tmp_path / "vmlinuz-7"), None, "single", root)
    assert (kernel.initrd, kernel.words) == (None, "single")
    (tmp_path / "initramfs-7.img").touch()
    assert jump.kernel_called(str(tmp_path / "vmlinuz-7"), None, None, root).initrd == tmp_path / "initramfs-7.img"
    with pytest.raises(TorporError, match=r"there is no .*nothing"):
        jump.kernel_called(str(tmp_path / "vmlinuz-7"), tmp_path / "nothing", None, root)


@pytest.mark.parametrize("word", ["9.9", "/nowhere/vmlinuz-9.9"])
def test_a_kernel_that_is_not_there(root: Path, word: str) -> None:
    with pytest.raises(TorporError, match="there is no kernel"):
        jump.kernel_called(word, None, None, root)


def _command(directory: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> Path:
    """A command that writes down how it was called."""
    log = directory / "called"
    (directory / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{log}\n{script}\n')
    (directory / name).chmod(0o755)
    monkeypatch.setenv(f"TORPOR_{name.upper()}", str(directory / name))
    return log


def test_what_is_in_the_way_is_said(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _command(tmp_path, monkeypatch, "kexec", "")
    assert jump.objection(root) is None
    (root / "proc/sys/kernel/kexec_load_disabled").write_text("1\n")
    assert "kexec_load_disabled" in str(jump.objection(root))
    (root / "sys/kernel/kexec_loaded").unlink()
    assert "CONFIG_KEXEC" in str(jump.objection(root))


def test_without_kexec_tools_it_is_said_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_KEXEC", "/nowhere/kexec")
    found = jump.objection(root)
    assert isinstance(found, RefusedError) and "kexec-tools" in found.describe()


def test_it_is_loaded_and_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _command(tmp_path, monkeypatch, "kexec", "")
    log = _command(tmp_path, monkeypatch, "systemctl", "")
    kernel = jump.Kernel(Path("/boot/vmlinuz-7"), Path("/boot/initrd.img-7"), "root=/dev/vda rw")
    jump.load(kernel)
    jump.go(kernel)
    assert log.read_text().splitlines() == [
        "kexec --load /boot/vmlinuz-7 --command-line=root=/dev/vda rw --initrd=/boot/initrd.img-7",
        "systemctl kexec --no-block",
    ]


def test_a_kernel_that_is_not_started_is_unloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _command(tmp_path, monkeypatch, "kexec", "")
    log = _command(tmp_path, monkeypatch, "systemctl", "echo no >&2; exit 1")
    with pytest.raises(EngineError, match="no"):
        jump.go(jump.Kernel(Path("/boot/vmlinuz-7"), None, ""))
    assert log.read_text().splitlines()[-1] == "kexec --unload"


def test_without_a_kernel_it_is_a_reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _command(tmp_path, monkeypatch, "systemctl", "")
    jump.go(None)
    assert log.read_text() == "systemctl reboot --no-block\n"


def test_nothing_is_done_where_nothing_would_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(jump, "is_here", lambda: True)
    monkeypatch.setattr(units, "are_there", lambda: False)
    with pytest.raises(RefusedError, match="nothing would be restored"):
        jump.insist_it_comes_back()
