"""The processor: what a program may have found out about it when it started, and relies on.

Kernel view
    None: programs ask the processor itself (CPUID), once, and choose their instructions by the answer.
    Some instructions it hides, for they are broken on that processor, or it was told to: CPUID may show them all the
    same, but /proc/cpuinfo does not, and nobody relies on them.
Image
    ``cpuinfo_x86_entry``: vendor, family, model, and the feature words of CPUID in the order that the kernel keeps them
    (arch/x86/include/asm/cpufeature.h; capability_ver 2).  The kernel's own words (3, 7, 8) stay 0, and so do the bits
    of instructions that it hides.
Restore
    Nothing is made.  A processor without an instruction that the old one had is refused: the program would get SIGILL
    long after a restore that looked good.  So is one without a part of the register state, but for the rights that
    protection keys give where no thread has changed them: memory that has a key is refused by a dump.
Limits
    What a program found out by measuring, or by the model's number, cannot be known.
"""

from __future__ import annotations

from collections.abc import Iterable

from torpor.base import log
from torpor.base.errors import RestoreError
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import ImageStore, load_one, store_one
from torpor.kernel.arch.x86_64.cpuid import Cpuid
from torpor.objects.arch.caps import DEFAULT, caps_of

CAPABILITY_VERSION = 2
_N_WORDS = {1: 12, 2: 19}
#: A component of the extended state, the rights to memory with each protection key; and what they are in a task that
#: has not changed them: the kernel's own choice (init_pkru_value, arch/x86/mm/pkeys.c), or the processor's.
_PKRU_BIT = 1 << 9
_UNTOUCHED_PKRU = (0x55555554, 0)
_ENTRY = m.cpuinfo_x86_entry
#: Word, leaf, subleaf, register (0: eax ... 3: edx).
_LEAVES = (
    (0, 0x1, 0, 3), (1, 0x80000001, 0, 3), (4, 0x1, 0, 2), (6, 0x80000001, 0, 2), (9, 0x7, 0, 1), (10, 0xD, 1, 0),
    (11, 0x7, 0, 2), (12, 0xF, 1, 3), (13, 0x80000008, 0, 1), (14, 0x6, 0, 0), (15, 0x8000000A, 0, 3), (16, 0xF, 0, 3),
    (17, 0x80000007, 0, 1), (18, 0x7, 0, 3),
)  # fmt: skip
#: Instructions that programs use once they have seen the bit, by word (Intel SDM 2A, AMD APM 3).
INSTRUCTIONS: dict[int, dict[int, str]] = {
    0: {0: "fpu", 4: "tsc", 8: "cx8", 15: "cmov", 19: "clflush", 23: "mmx", 24: "fxsr", 25: "sse", 26: "sse2"},
    1: {11: "syscall", 22: "mmxext", 27: "rdtscp", 30: "3dnowext", 31: "3dnow"},
    4: {0: "sse3", 1: "pclmulqdq", 9: "ssse3", 12: "fma", 13: "cx16", 19: "sse4_1", 20: "sse4_2", 22: "movbe",
        23: "popcnt", 25: "aes", 26: "xsave", 27: "osxsave", 28: "avx", 29: "f16c", 30: "rdrand"},
    6: {0: "lahf_lm", 5: "abm", 6: "sse4a", 7: "misalignsse", 8: "3dnowprefetch", 11: "xop", 16: "fma4", 21: "tbm"},
    9: {0: "fsgsbase", 3: "bmi1", 4: "hle", 5: "avx2", 8: "bmi2", 9: "erms", 11: "rtm", 16: "avx512f", 17: "avx512dq",
        18: "rdseed", 19: "adx", 21: "avx512ifma", 23: "clflushopt", 24: "clwb", 28: "avx512cd", 29: "sha_ni",
        30: "avx512bw", 31: "avx512vl"},
    10: {0: "xsaveopt", 1: "xsavec", 2: "xgetbv1"},
    11: {1: "avx512vbmi", 5: "waitpkg", 6: "avx512_vbmi2", 8: "gfni", 9: "vaes", 10: "vpclmulqdq", 11: "avx512_vnni",
         12: "avx512_bitalg", 14: "avx512_vpopcntdq", 22: "rdpid", 27: "movdiri", 28: "movdir64b"},
    13: {0: "clzero"},
    18: {2: "avx512_4vnniw", 3: "avx512_4fmaps", 4: "fsrm", 14: "serialize", 22: "amx_bf16", 23: "avx512_fp16",
         24: "amx_tile", 25: "amx_int8"},
}  # fmt: skip
#: Where the kernel's name is another one, and what it never shows (arch/x86/include/asm/cpufeatures.h).
_KERNELS_NAMES = {"sse3": "pni"}
_NEVER_SHOWN = frozenset({"osxsave"})
#: Enough for the first processor. Of a machine with many the file is long, and made when it is read.
_CPUINFO_BYTES = 1 << 14


def read() -> m.cpuinfo_x86_entry:
    """What this processor says of itself."""
    with Cpuid() as cpu:
        _, b, c, d = cpu.leaf(0)
        vendor = b"".join(word.to_bytes(4, "little") for word in (b, d, c))
        version = cpu.leaf(1)[0]
        family, model = version >> 8 & 0xF, version >> 4 & 0xF
        if family == 0xF:
            family += version >> 20 & 0xFF
        if family >= 6:
            model += (version >> 16 & 0xF) << 4
        words = [0] * _N_WORDS[CAPABILITY_VERSION]
        for word, leaf, subleaf, register in _LEAVES:
            words[word] = cpu.leaf(leaf, subleaf)[register]
        low, size, size_max, high = cpu.leaf(0xD)
        name = b"".join(
            word.to_bytes(4, "little") for leaf in (0x80000002, 0x80000003, 0x80000004) for word in cpu.leaf(leaf)
        )
    return _ENTRY(
        vendor_id=_ENTRY.vendor.INTEL if vendor == b"GenuineIntel" else _ENTRY.vendor.AMD,
        cpu_family=family, model=model, stepping=version & 0xF, capability_ver=CAPABILITY_VERSION, capability=words,
        model_id=name.partition(b"\0")[0].decode("ascii", "replace").strip(), xfeatures_mask=high << 32 | low,
        xsave_size=size, xsave_size_max=size_max,
    )  # fmt: skip


def dump(store: ImageStore) -> None:
    """Write ``cpuinfo.img``: what this processor can do, without what the kernel hides."""
    store_one(store, "CPUINFO", m.cpuinfo_entry(x86_entry=[without_hidden(read())]))


def without_hidden(entry: m.cpuinfo_x86_entry, path: str = "/proc/cpuinfo") -> m.cpuinfo_x86_entry:
    """*entry*, which is of this processor and is changed, without the instructions that the kernel hides."""
    shown = _shown(path)
    for word, names in INSTRUCTIONS.items() if shown else ():
        for bit, name in names.items():
            if name not in _NEVER_SHOWN and _KERNELS_NAMES.get(name, name) not in shown:
                entry.capability[word] &= ~(1 << bit)
    return entry


def _shown(path: str) -> frozenset[str]:
    """The flags of the first processor; none where the file does not tell."""
    try:
        with open(path, "rb", buffering=0) as stream:
            text = stream.read(_CPUINFO_BYTES)
    except OSError:
        return frozenset()
    for line in text.split(b"\n"):
        if line.startswith(b"flags"):
            return frozenset(line.partition(b":")[2].decode("ascii", "replace").split())
    return frozenset()


def check(store: ImageStore, wanted: str = DEFAULT, cores: Iterable[m.core_entry] | None = None) -> None:
    """RestoreError where this processor lacks what the images' had.

    *cores* are the images of all threads, if they are known: what they show to be unused may be lacking.

    *wanted* is a list as of ``--cpu-cap``: ``ins`` instructions, ``fpu`` register state, ``cpu`` everything the same,
    ``all``, ``none``; a word behind ``^`` is taken away.  Images without cpuinfo.img are not checked.
    """
    caps = caps_of(wanted)
    if not caps or not store.exists(kinds.CPUINFO.file_name()):
        return
    entries = load_one(store, kinds.CPUINFO).x86_entry
    if not entries:
        raise RestoreError("the images are of another kind of processor")
    theirs, ours = entries[0], read()
    if len(theirs.capability) != _N_WORDS.get(theirs.capability_ver, -1):
        raise ImageError(f"cpuinfo.img: {len(theirs.capability)} words of version {theirs.capability_ver}")
    hint = "restore on a processor like it, or use --cpu-cap=none at your own risk"
    where = f"than {theirs.model_id or 'the one'} that the checkpoint was made on"
    if "ins" in caps and (lacking := lacking_instructions(theirs, ours)):
        raise RestoreError(f"this processor can do less {where}: it lacks {', '.join(lacking)}", hint=hint)
    bits = theirs.xfeatures_mask & ~ours.xfeatures_mask
    if "fpu" in caps and bits & _PKRU_BIT and cores is not None and not any(map(_has_set_rights, cores)):
        bits &= ~_PKRU_BIT
    if "fpu" in caps and bits:
        raise RestoreError(f"this processor has less register state {where}: XCR0 bits {bits:#x}", hint=hint)
    if "cpu" in caps and not _same(theirs, ours) and not _same(theirs, without_hidden(ours)):
        raise RestoreError(f"this processor has other features {where}", hint="use --cpu-cap=ins")
    log.debug("cpu: everything that the images may rely on is there")


def _has_set_rights(core: m.core_entry) -> bool:
    state = core.thread_info.fpregs.xsave
    return bool(state.xstate_bv & _PKRU_BIT and state.pkru and state.pkru[0] not in _UNTOUCHED_PKRU)


def _same(theirs: m.cpuinfo_x86_entry, ours: m.cpuinfo_x86_entry) -> bool:
    return list(theirs.capability) == list(ours.capability)[: len(theirs.capability)]


def lacking_instructions(theirs: m.cpuinfo_x86_entry, ours: m.cpuinfo_x86_entry) -> list[str]:
    """Names of the instructions that *ours* has not and *theirs* has."""
    found = []
    for word, names in INSTRUCTIONS.items():
        if word < len(theirs.capability):
            missing = theirs.capability[word] & ~ours.capability[word]
            found += [name for bit, name in names.items() if missing & 1 << bit]
    return found
