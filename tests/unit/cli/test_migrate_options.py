"""``torpor migrate``: what excludes each other is told before anybody is asked."""

import io
import sys
from typing import cast

import pytest

from torpor.base.errors import TorporError, UsageError
from torpor.cli.commands import migrate
from torpor.cli.torpor import parser_for
from torpor.migrate.rounds import Round
from torpor.migrate.way import Destination


@pytest.mark.parametrize("asked", [["--post-copy", "now"], ["--on-timeout", "post-copy"]])
@pytest.mark.parametrize("other", [["--keep-source"], ["--via", "ssh"]])
def test_memory_that_comes_later_needs_a_source_and_a_way(asked: list[str], other: list[str]) -> None:
    args = parser_for(["migrate"]).parse_args(["migrate", *asked, *other, "job:x", "host"])
    with pytest.raises(UsageError, match="exclude each other") as caught:
        migrate.main(args)
    assert " ".join(asked) in caught.value.describe() and other[0] in caught.value.describe()


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_a_terminal_that_takes_no_more_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise TorporError("the very reason")

    with _Terminal(open("/dev/full", "wb")) as full:
        monkeypatch.setattr(sys, "stderr", full)
        migrate._tell_round(Round(1, 1 << 20, 1.0, 0.1, 1.0, 1.0))
    with _Terminal(open("/dev/full", "wb")) as full:
        monkeypatch.setattr(sys, "stderr", full)
        monkeypatch.setattr(migrate, "_migrate_one", fails)
        args = parser_for(["migrate"]).parse_args(["migrate", "job:x", "job:y", "host"])
        args.parallel = 1
        came = migrate._several(args, ["job:x"], cast(Destination, None))
    assert "the very reason" in came["job:x"][1]
