"""The tests of kernel objects on other kernels.  What came of them is kept for the table in docs/support-matrix.md."""

import os
from pathlib import Path

from harness.compiler import SOURCES, compiled, programs
from vm.disks import PLAIN
from vm.kernels import Kernel, version
from vm.machine import LabMachine
from vm.objects import EXPLAINED, FAILED, FLAVOURS, PASSED, chosen, keep, outcomes

#: Under emulation all is several times slower.
_SLOWER = 4


def test_objects(kernel: Kernel, installed: dict[str, Path], tmp_path: Path) -> None:
    # Where the machine's compiler is the host's, it finds the programs made.
    for source in SOURCES.glob("*.c"):
        if source.stem != "workload":
            compiled(source.stem)
    script = f"""
    export TMPDIR=/lab/tmp TORPOR_FLAVOURS={",".join(FLAVOURS)} TORPOR_SLOW={_SLOWER}
    chmod 700 /lab/tmp/*
    /opt/torpor/bin/python -m pytest -v --tb=short -p no:cacheprovider --junitxml=/lab/out/junit.xml \\
        -k "{" or ".join(FLAVOURS)}" {os.environ.get("TORPOR_VM_OBJECTS", " ".join(chosen()))}
    """
    payload = {**installed, f"tmp/{programs().name}": programs()}
    with LabMachine(PLAIN, n_processors=2, n_megabytes=2048) as machine:
        result = machine.run(kernel, script, payload=payload, timeout_s=1500)
        (tmp_path / "output").write_text(result.output)
        assert result.status in (0, 1), result.output[-5000:]
        found = outcomes(kernel.name, version(kernel), result.files / "junit.xml")
    if "TORPOR_VM_OBJECTS" not in os.environ:
        keep(kernel.name, found)
    assert any(each.result == PASSED for each in found), result.output[-5000:]
    failed = [each for each in found if each.result == FAILED and (kernel.name, each.name) not in EXPLAINED]
    assert not failed, "\n".join(f"{each.name}: {each.reason}" for each in failed)
