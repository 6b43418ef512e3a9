"""Memory with a protection key is refused by its address: without one, a program's own guard would be gone."""

from types import SimpleNamespace
from typing import Any

import pytest

from torpor.base.errors import RefusedError
from torpor.kernel.procfs.maps import PROT_EXEC, PROT_READ, Vma
from torpor.objects.memory import vmas

_PROCESS: Any = SimpleNamespace(describe=lambda: "pid 7 (guarded)")
_SESSION: Any = None


def test_it_is_refused_by_its_address() -> None:
    vma = Vma(0x5000, 0x6000, PROT_READ, False, 0, 0, 0, "", protection_key=2)
    with pytest.raises(RefusedError, match=r"pid 7 \(guarded\) has memory with protection key 2 at 0x5000"):
        vmas.dump_one(_PROCESS, vma, _SESSION)


def test_the_kernels_own_is_not() -> None:
    vma = Vma(0x5000, 0x6000, PROT_EXEC, False, 0, 0, 0, "", protection_key=1)
    assert vmas.dump_one(_PROCESS, vma, _SESSION).start == 0x5000
