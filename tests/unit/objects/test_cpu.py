"""A processor that can do less than the images' is refused by the names of what it lacks."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from torpor.base.errors import RestoreError
from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.images.store import store_one
from torpor.images.stores.memory import MemStore
from torpor.objects.arch import core, cpu
from torpor.objects.arch.caps import caps_of


def _store(entry: m.cpuinfo_x86_entry) -> MemStore:
    store = MemStore()
    store_one(store, "CPUINFO", m.cpuinfo_entry(x86_entry=[entry]))
    return store


def _lacking_one() -> tuple[m.cpuinfo_x86_entry, str]:
    """A processor that has one instruction more than ours, and its name."""
    entry = cpu.read()
    for word, names in cpu.INSTRUCTIONS.items():
        for bit, name in names.items():
            if not entry.capability[word] & 1 << bit:
                entry.capability[word] |= 1 << bit
                return entry, name
    raise AssertionError("a processor that can do everything")


def test_the_same_processor_will_do() -> None:
    store = MemStore()
    cpu.dump(store)
    for wanted in ("all", "cpu", "ins", "fpu", "none"):
        cpu.check(store, wanted)


def test_an_instruction_less_is_refused_by_name() -> None:
    entry, name = _lacking_one()
    with pytest.raises(RestoreError, match=name):
        cpu.check(_store(entry))
    cpu.check(_store(entry), "fpu")
    cpu.check(_store(entry), "none")


def test_an_instruction_that_the_kernel_hides_is_not_required(tmp_path: Path) -> None:
    """CPUID shows it, /proc/cpuinfo does not: so it is on some AMD with rdseed."""
    shown = tmp_path / "cpuinfo"
    flags = [name for names in cpu.INSTRUCTIONS.values() for name in names.values() if name not in ("rdseed", "sse3")]
    shown.write_text("processor\t: 0\nflags\t\t: " + " ".join([*flags, "pni"]) + "\n")
    entry = cpu.read()
    entry.capability[9] |= 1 << 18
    before = list(entry.capability)
    cpu.without_hidden(entry, str(shown))
    assert not entry.capability[9] >> 18 & 1
    entry.capability[9] |= 1 << 18
    assert list(entry.capability) == before


def test_a_machine_without_cpuinfo_hides_nothing(tmp_path: Path) -> None:
    assert cpu.without_hidden(cpu.read(), str(tmp_path / "none")) == cpu.read()


def test_images_that_ask_for_what_is_hidden_here_are_fine_where_the_processor_has_it() -> None:
    for wanted in ("cpu", "ins"):
        cpu.check(_store(cpu.read()), wanted)


def test_register_state_less_is_refused() -> None:
    entry = cpu.read()
    entry.xfeatures_mask |= 1 << 62
    with pytest.raises(RestoreError, match="register state"):
        cpu.check(_store(entry))
    cpu.check(_store(entry), "all,^fpu")


@pytest.mark.parametrize(("rights", "is_fine"), [(None, True), (0x55555554, True), (0, True), (0x55555550, False)])
def test_protection_keys_are_only_needed_where_they_are_used(
    rights: int | None, is_fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every task of a processor that has them has the state; here is one that has not."""
    entry, ours = cpu.read(), cpu.read()
    entry.xfeatures_mask |= 1 << 9
    ours.xfeatures_mask &= ~(1 << 9)
    monkeypatch.setattr("torpor.objects.arch.x86_64.cpu.read", lambda: ours)
    cores = [core.new(), core.new()]
    if rights is not None:
        state = cores[1].thread_info.fpregs.xsave
        state.xstate_bv = 1 << 9 | 7
        state.pkru.extend((rights, 0))
    with nullcontext() if is_fine else pytest.raises(RestoreError, match="XCR0 bits 0x200"):
        cpu.check(_store(entry), cores=cores)
    with pytest.raises(RestoreError, match="register state"):
        cpu.check(_store(entry))


def test_images_without_say_nothing() -> None:
    cpu.check(MemStore())


def test_a_damaged_image() -> None:
    entry = cpu.read()
    del entry.capability[3:]
    with pytest.raises(ImageError):
        cpu.check(_store(entry))


@pytest.mark.parametrize(
    ("text", "caps"),
    [("all", {"ins", "fpu", "cpu"}), ("none", set()), ("ins", {"ins"}), ("all,^cpu", {"ins", "fpu"}), ("", set())],
)
def test_words(text: str, caps: set[str]) -> None:
    assert caps_of(text) == caps
