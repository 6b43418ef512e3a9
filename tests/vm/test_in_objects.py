"""The tests of kernel objects on other kernels.  What came of them is kept for the table in docs/support-matrix.md."""

import os
from collections.abc import Callable
from pathlib import Path

from harness.compiler import SOURCES, compiled, make, programs
from harness.events import time_limit_s
from harness.program import need
from vm import objects
from vm.architectures import Architecture
from vm.disks import PLAIN
from vm.kernels import Kernel, version
from vm.machine import LabMachine
from vm.payload import PEER

#: Under emulation all is several times slower.
_SLOWER = 8


def _programs(architecture: Architecture, tmp_path: Path) -> dict[str, Path]:
    """The payload with the workloads, for under emulation a compiler takes long."""
    if not architecture.is_foreign:
        # Where the machine's compiler is the host's, it finds the programs made.
        for source in SOURCES.glob("*.c"):
            if source.stem != "workload":
                compiled(source.stem)
        return {f"tmp/{programs().name}": programs()}
    compiler = need(f"{architecture.machine}-linux-gnu-gcc")
    (tmp_path / "programs").mkdir()
    for source in [each for name in objects.names() for each in SOURCES.glob(f"{name}*.c")]:
        make(source.stem, compiler, tmp_path / "programs" / source.stem)
    return {"tmp/programs": tmp_path / "programs"}


def test_objects(
    kernel: Kernel,
    installed: dict[str, Path],
    peer: dict[str, Path],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    made = _programs(kernel.architecture, tmp_path)
    # Those of our own tests that go through no flavour ask what only torpor has.
    only = f"-k '{' or '.join(objects.FLAVOURS)}'" if peer or objects.FLAVOURS != objects.KEPT_FLAVOURS else ""
    limit_s = float(os.environ.get("TORPOR_VM_LIMIT_S", "1500"))
    # Interrupted in time it says what has failed so far.
    python = f"timeout --signal=INT {time_limit_s(limit_s) - 30} /opt/torpor/bin/python"
    script = f"""
    export TMPDIR=/lab/tmp TORPOR_FLAVOURS={",".join(objects.FLAVOURS)} TORPOR_SLOW={_SLOWER}
    export TORPOR_WORKLOADS=/lab/tmp/programs
    {f"export TORPOR_TEST_ENGINE={PEER}" if peer else ""}
    chmod 700 /lab/tmp/*
    {python} -m pytest -v --tb=short -p no:cacheprovider --junitxml=/lab/out/junit.xml \\
        {only} {" ".join(objects.chosen())}
    """
    payload = {**installed, **peer, **made}
    # With two processors 7.2 was seen to die in its scheduler, in code that it had just rewritten: an emulator's fault.
    with LabMachine(PLAIN, n_processors=1 if kernel.name == "7.x" else 2, n_megabytes=2048) as machine:
        result = machine.run(kernel, script, payload=payload, timeout_s=limit_s)
        (tmp_path / "output").write_text(result.output)
        name = f"{kernel.name} {objects.PEER_NAME}" if peer else kernel.name
        found = objects.outcomes(name, version(kernel), result.files / "junit.xml", result.output)
    record_property(objects.COUNTED, objects.counts(found))
    if objects.FLAVOURS == objects.KEPT_FLAVOURS:
        objects.keep(found)
    assert result.status in (0, 1), result.output[-5000:]
    assert any(each.result == objects.PASSED for each in found), result.output[-5000:]
    failed = [each for each in found if each.result == objects.FAILED and (name, each.name) not in objects.EXPLAINED]
    assert peer or not failed, "\n".join(f"{each.name}: {each.reason}" for each in failed)
