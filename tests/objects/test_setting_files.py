"""Files by which something is set: the tree's own are carried, others' are neither dumped nor opened for an image."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import engine
from harness.edited import forget_manifest
from harness.flavours import workload_test
from objects.test_refused_before import dumped
from torpor.images import kinds
from torpor.images.store import load_all, store_all
from torpor.images.stores.directory import DirStore

test_of_the_tree = workload_test("setting_files")
_GROUPS = next(path for path in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if os.path.exists(f"{path}/cgroup.procs"))
_SYSCTL, _SYSFS = "/proc/sys/kernel/core_pattern", "/sys/kernel/mm/transparent_hugepage/enabled"


@pytest.mark.root
@pytest.mark.parametrize(
    ("path", "said"),
    [
        (_SYSCTL, "this machine (proc)"),
        (_SYSFS, "this machine (sysfs)"),
        (f"/proc/{os.getpid()}/oom_score_adj", f"pid {os.getpid()}, which is outside of the tree"),
    ],
    ids=["sysctl", "sysfs", "process"],
)
def test_of_others_is_refused_before_the_freeze(path: str, said: str) -> None:
    log, called = dumped(f"f = os.open({path!r}, os.O_WRONLY)")
    assert f"{path}, open for writing, sets {said}" in log
    assert "--external file[" in log
    assert called == []


@pytest.mark.root
def test_tasks_of_a_control_group_may_be_set() -> None:
    log, called = dumped(f"f = os.open('{_GROUPS}/cgroup.procs', os.O_WRONLY)")
    assert not log
    assert "pre-dump" in called


@pytest.mark.root
def test_handed_in(tmp_path: Path) -> None:
    """What is refused otherwise can be given by whoever restores."""
    reader, writer = os.pipe()
    program = f"import os, signal\nf = os.open({_SYSCTL!r}, os.O_RDWR)\nos.dup2(f, 77)\nos.close(f)\n"
    program += f"os.write({writer}, b'x')\nos.close({writer})\nsignal.pause()"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        pass_fds=(writer,),
    )  # fmt: skip
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    info = Path(f"/proc/{process.pid}/fdinfo/77").read_text().split()
    name = f"file[{int(info[info.index('mnt_id:') + 1]):x}:{int(info[info.index('ino:') + 1]):x}]"
    engine.dump(process.pid, tmp_path, options=["--external", name])
    process.wait()
    with open(_SYSCTL) as given:
        fd = given.fileno()
        pid = engine.restore(tmp_path, options=["--inherit-fd", f"fd[{fd}]:{name}"], pass_fds=[fd])
    try:
        assert os.readlink(f"/proc/{pid}/fd/77") == _SYSCTL
    finally:
        os.kill(pid, 9)


@pytest.mark.root
@pytest.mark.parametrize("path", [_SYSCTL, _SYSFS, f"/proc/{os.getpid()}/mem"], ids=["sysctl", "sysfs", "memory"])
def test_not_because_an_image_names_it(path: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["sleep", "1000000"], start_new_session=True, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    engine.dump(process.pid, tmp_path)
    process.wait()
    with DirStore(tmp_path, "w") as store:
        files = load_all(store, kinds.FILES)
        null = next(entry for entry in files if entry.reg.name == "/dev/null" and entry.reg.flags & 3)
        null.reg.name, null.reg.mode = path, os.stat(path).st_mode
        store_all(store, kinds.FILES, files)
    forget_manifest(tmp_path)
    with pytest.raises(engine.EngineError) as caught:
        engine.restore(tmp_path)
    assert "it is not opened for writing because an image names it" in caught.value.log
