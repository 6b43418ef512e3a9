"""A puppet that is to die leaves no core file, and we may not look into it any more."""

import errno
from types import SimpleNamespace

import pytest

from torpor.base.errors import RestoreError
from torpor.objects.task import zombie


class _Runner:
    """Refuses to be written to before its work, or to be read after it."""

    def __init__(self, refuses: str) -> None:
        self._refuses, self.done = refuses, [""]

    def begin(self, batch: object) -> None:
        self._refuse("begin")

    def finish(self) -> None:
        self._refuse("finish")

    def run(self, batch: object) -> None:
        self.begin(batch)
        self.finish()

    def _refuse(self, step: str) -> None:
        if step == self._refuses:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        self.done.append(step)


def test_what_may_not_be_looked_at_any_more_is_as_it_should_be() -> None:
    runner = _Runner("finish")
    zombie._leave_no_core(SimpleNamespace(ns_pid=7, runner=runner))  # type: ignore[arg-type]
    assert "begin" in runner.done


def test_what_may_not_be_told_would_leave_one() -> None:
    with pytest.raises(RestoreError, match="pid 7 cannot be kept from leaving a core file"):
        zombie._leave_no_core(SimpleNamespace(ns_pid=7, runner=_Runner("begin")))  # type: ignore[arg-type]
