"""What is seen of a task from outside, and refused."""

import pytest

from torpor.kernel.procfs.status import parse_status
from torpor.objects.arch import uncarried


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("untag_mask:\t0xffffffffffffffff\nx86_Thread_features:\t\n", ""),
        ("untag_mask:\t0x81ffffffffffffff\n", "linear address masking"),
        ("x86_Thread_features:\tshstk wrss \n", "shadow stack"),
        ("Name:\ta\n", ""),
    ],
)
def test_problems(lines: str, why: str) -> None:
    found = list(uncarried.problems("pid 7 (a)", parse_status(lines)))
    assert len(found) == bool(why)
    assert not found or why in str(found[0])
