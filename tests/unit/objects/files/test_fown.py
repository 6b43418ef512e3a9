"""As whom a puppet sets the owner of a file: the ids that the kernel notes are those of whoever does."""

import struct
from types import SimpleNamespace

import pytest

from torpor.base.ids import Pid
from torpor.images import messages as m
from torpor.kernel.arch import nr
from torpor.kernel.idmap import Extent, IdMap, IdMaps
from torpor.kernel.procfs.status import Status
from torpor.objects.files import fown
from torpor.tracee.batch import Batch

_OWN_NAMESPACE = IdMaps(*2 * (IdMap((Extent(0, 1000, 1), Extent(1, 100_000, 65536))),))
_OURS = IdMaps(*2 * (IdMap((Extent(0, 0, 1 << 31),)),))


def _switches(monkeypatch: pytest.MonkeyPatch, idmaps: IdMaps, puppet: int, user: int) -> list[tuple[int, int, int]]:
    """The arguments of setresuid(2) while a puppet that is *puppet*, as we see it, sets an owner for *user*."""
    monkeypatch.setattr(fown, "read_status", lambda _pid: Status(f"Uid:\t{puppet}\t{puppet}\t{puppet}\t{puppet}\n"))
    batch, process = Batch(), SimpleNamespace(pid=Pid(4), idmaps=idmaps)
    entry = m.fown_entry(uid=user, euid=user, signum=0, pid_type=1, pid=7)
    fown._add(batch, process, 3, 0, entry)  # type: ignore[arg-type]
    words = struct.unpack_from(f"{len(batch._words)}Q", batch.encode(0))
    size = len(words) // len(batch)
    calls = [words[at : at + 4] for at in range(0, len(words), size)]
    return [call[1:] for call in calls if call[0] & 0xFFFFFFFF == nr.setresuid]


def test_in_a_namespace_of_its_own_it_is_who_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built by somebody else than root (1000), it is root inside, and so it becomes again."""
    assert _switches(monkeypatch, _OWN_NAMESPACE, 1000, 33) == [(33, 33, 0), (0, 0, 0)]


def test_who_it_is_already_it_need_not_become(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _switches(monkeypatch, _OWN_NAMESPACE, 1000, 0) == []
    assert _switches(monkeypatch, _OURS, 1000, 1000) == []
    assert _switches(monkeypatch, _OWN_NAMESPACE, 100_032, 33) == []


def test_in_ours_it_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _switches(monkeypatch, _OURS, 0, 33) == [(33, 33, 0), (0, 0, 0)]
