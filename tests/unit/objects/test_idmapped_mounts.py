import pytest

from torpor.base.errors import RefusedError
from torpor.base.ids import Pid
from torpor.kernel.procfs.mountinfo import Mount, parse_mountinfo
from torpor.objects.ns.mnt.entries import check_ids

_TEXT = "10 1 8:1 / / rw - ext4 /dev/a rw\n11 10 8:2 / /volume rw,idmapped - ext4 /dev/b rw\n"


def _mounts(text: str) -> list[Mount]:
    return parse_mountinfo(text)


def test_a_map_of_its_own_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"/volume .* idmapped"):
        check_ids(Pid(1), _mounts(_TEXT)[1], _mounts(_TEXT.replace(",idmapped", "")))


def test_what_the_host_has_with_its_map() -> None:
    for mount in _mounts(_TEXT):
        check_ids(Pid(1), mount, _mounts(_TEXT))
