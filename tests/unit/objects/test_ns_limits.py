"""What an image may say that confines a namespace, and nothing else of the machine."""

import pytest

from torpor.images import messages as m
from torpor.images.errors import ImageError
from torpor.kernel.namespaces import CLONE_NEWPID, CLONE_NEWUSER
from torpor.objects.ns import limits


@pytest.mark.parametrize(
    "name",
    [
        "kernel/core_pattern",
        "user/../kernel/core_pattern",
        "user/max_/../../kernel/core_pattern",
        "vm/overcommit_memory",
        "user/",
        "/proc/sys/kernel/core_pattern",
        "user/max_a\0b",
        "",
        "kernel/pid_max",
    ],
)
def test_no_other_sysctl_is_named(name: str) -> None:
    with pytest.raises(ImageError):
        limits.is_of(m.torpor_sysctl(name=name, value=0), CLONE_NEWUSER | CLONE_NEWPID)


def test_each_is_set_in_its_own_namespace_only() -> None:
    user, noexec = (m.torpor_sysctl(name=name, value=0) for name in ("user/max_user_namespaces", "vm/memfd_noexec"))
    assert limits.is_of(user, CLONE_NEWUSER) and not limits.is_of(user, CLONE_NEWPID)
    assert limits.is_of(noexec, CLONE_NEWPID) and not limits.is_of(noexec, CLONE_NEWUSER)
