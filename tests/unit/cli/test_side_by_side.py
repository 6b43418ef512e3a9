"""Several at a time, each in a process of its own."""

import os
import select
import signal

from harness.events import time_limit_s
from torpor.base.errors import JobError
from torpor.cli import side_by_side


def test_as_many_as_are_wanted_are_under_way_at_once() -> None:
    """Each of two waits for the other."""
    ends = {"a": os.pipe(), "b": os.pipe()}

    def work(word: str) -> object:
        os.write(ends["b" if word == "a" else "a"][1], b"x")
        assert select.select((ends[word][0],), (), (), time_limit_s(20))[0]
        return {"word": word, "pid": os.getpid()}

    found = side_by_side.run(["a", "b"], 2, work)
    assert {word: value["word"] for word, (value, _, _) in found.items()} == {"a": "a", "b": "b"}  # type: ignore[index]
    assert len({os.getpid(), *(value["pid"] for value, _, _ in found.values())}) == 3  # type: ignore[index]


def test_what_fails_is_told_and_harms_no_other() -> None:
    def work(word: str) -> object:
        if word == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "wrong":
            raise JobError("it is wrong", hint="make it right")
        return word

    found = side_by_side.run(["killed", "good", "wrong"], 1, work)
    assert found["good"] == ("good", "", 0)
    assert found["wrong"][1:] == ("it is wrong (make it right)", JobError.exit_code)
    assert "killed by signal 9" in found["killed"][1] and found["killed"][2] == 1
