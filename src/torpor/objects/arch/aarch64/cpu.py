"""The processor: what a program may have found out about it when it started, and relies on.

Kernel view
    AT_HWCAP and its like, which /proc/cpuinfo has in words; the length of SVE's vectors in
    /proc/sys/abi/sve_default_vector_length.
Image
    ``cpuinfo_entry``, in which CRIU has nothing of this machine: ``torpor_features``, ``torpor_sve_bytes``.
Restore
    Nothing is made.  A processor without an instruction that the old one had is refused: the program would get SIGILL
    long after a restore that looked good.  So is one whose vectors have another length, for a program keeps vectors and
    their length on its stack.
Limits
    What a program found out by measuring, or by the model's number, cannot be known.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import ImageStore, load_one, store_one
from torpor.objects.arch.caps import DEFAULT, caps_of

#: Enough for the first processor.
_CPUINFO_BYTES = 1 << 14
_SVE = "sve"
#: What the kernel counts for itself, and no instruction is.
_NOT_INSTRUCTIONS = frozenset({"evtstrm", "cpuid"})


def read() -> m.cpuinfo_entry:
    """What this processor says of itself."""
    entry = m.cpuinfo_entry(torpor_features=sorted(_shown()))
    if _SVE in entry.torpor_features:
        entry.torpor_sve_bytes = vector_bytes()
    return entry


def _shown(path: str = "/proc/cpuinfo") -> frozenset[str]:
    with open(path, "rb", buffering=0) as stream:
        text = stream.read(_CPUINFO_BYTES)
    for line in text.split(b"\n"):
        if line.startswith(b"Features"):
            return frozenset(line.partition(b":")[2].decode("ascii", "replace").split())
    return frozenset()


@cache
def vector_bytes() -> int:
    """The length of a vector of SVE's, unless a thread chooses another."""
    with open("/proc/sys/abi/sve_default_vector_length", "rb", buffering=0) as stream:
        return int(stream.read(64))


def dump(store: ImageStore) -> None:
    """Write ``cpuinfo.img``: what this processor can do."""
    store_one(store, "CPUINFO", read())


def check(store: ImageStore, wanted: str = DEFAULT, cores: Iterable[m.core_entry] | None = None) -> None:
    """RestoreError where this processor lacks what the images' had.

    *wanted* is a list as of ``--cpu-cap``: ``ins`` instructions, ``fpu`` the length of vectors, ``cpu`` everything the
    same, ``all``, ``none``; a word behind ``^`` is taken away.  Images that do not tell, as CRIU's, are not checked.
    """
    caps = caps_of(wanted)
    if not caps or not store.exists(kinds.CPUINFO.file_name()):
        return
    theirs, ours = load_one(store, kinds.CPUINFO), read()
    if theirs.x86_entry or theirs.ppc64_entry:
        raise RestoreError("the images are of another kind of processor")
    hint = "restore on a processor like it, or use --cpu-cap=none at your own risk"
    lacking = set(theirs.torpor_features) - set(ours.torpor_features) - _NOT_INSTRUCTIONS
    if "ins" in caps and lacking:
        raise RestoreError(
            f"this processor can do less than the one that the checkpoint was made on: it lacks "
            f"{', '.join(sorted(lacking))}",
            hint=hint,
        )
    if "fpu" in caps and theirs.HasField("torpor_sve_bytes") and theirs.torpor_sve_bytes != ours.torpor_sve_bytes:
        raise RestoreError(
            f"the checkpoint has vectors of {theirs.torpor_sve_bytes} bytes, and this processor is set to "
            f"{ours.torpor_sve_bytes}",
            hint=f"sysctl abi.sve_default_vector_length={theirs.torpor_sve_bytes}, if it has those",
        )
    if "cpu" in caps and set(theirs.torpor_features) != set(ours.torpor_features):
        raise RestoreError(
            "this processor has other features than the one that the checkpoint was made on", hint="use --cpu-cap=ins"
        )
    log.debug("cpu: everything that the images may rely on is there")
