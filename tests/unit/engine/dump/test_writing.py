"""When a set of images is whole, here and where it goes besides."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from torpor.engine.dump import writing
from torpor.engine.dump.session import DumpSession
from torpor.images.errors import StoreError
from torpor.images.stores.memory import MemStore


def _session(done: list[str], fails: str = "") -> DumpSession:
    def step(name: str) -> Any:
        def run(*_: object) -> None:
            done.append(name)
            if name == fails:
                raise StoreError(name)

        return run

    new = SimpleNamespace(is_sealed=False, store=MemStore(), seal=step("sealed"), ident="1", path="here")
    options = SimpleNamespace(
        notes=(("note", b"text"),), also=SimpleNamespace(commit=step("sent")), made_by="", commit=step("committed"),
        leave_running=False,
    )  # fmt: skip
    here = SimpleNamespace(flush=step("flushed"))
    return cast(
        DumpSession, SimpleNamespace(new=new, options=options, alive=[], owed=[], here=here, tracker=None, both=None)
    )


def test_who_rebuilds_it_elsewhere_goes_on_while_it_is_sealed_here() -> None:
    done: list[str] = []
    session = _session(done)
    writing.commit_before_end(session)
    assert done == ["sent", "flushed", "sealed", "committed"] and session.new.store.exists("note")


@pytest.mark.parametrize(("fails", "done"), [("sent", ["sent"]), ("sealed", ["sent", "flushed", "sealed"])])
def test_nothing_is_committed_that_is_not_whole_in_both(fails: str, done: list[str]) -> None:
    found: list[str] = []
    with pytest.raises(StoreError, match=fails):
        writing.commit_before_end(_session(found, fails))
    assert found == done
