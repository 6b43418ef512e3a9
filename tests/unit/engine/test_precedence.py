"""What images of strangers may not ask for at the cost of others: each refused by its field, the ordinary allowed."""

import os
import resource
from types import SimpleNamespace
from typing import cast

import pytest

from torpor.base.errors import NotPermittedError
from torpor.engine.restore import precedence
from torpor.images import messages as m
from torpor.objects.model import RestoreProcess, RestoreThread

_BATCH, _FIFO, _RR, _DEADLINE, _RESET = 3, 1, 2, 6, 0x40000000
_RLIMIT_NICE, _RLIMIT_RTPRIO = 13, 14


def thread(**fields: object) -> RestoreThread:
    core = m.core_entry()
    for name, value in fields.items():
        setattr(core.thread_core, name, value)
    return cast("RestoreThread", SimpleNamespace(core=core, ns_tid=9))


def process(limits: int = 16, **fields: object) -> RestoreProcess:
    core = m.core_entry()
    for name, value in fields.items():
        setattr(core.tc, name, value)
    for _ in range(limits):
        core.tc.rlimits.rlimits.add(cur=0, max=0)
    return cast("RestoreProcess", SimpleNamespace(core=core, ns_pid=9))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sched_policy", _FIFO), ("sched_policy", _RR), ("sched_policy", _DEADLINE), ("sched_policy", _FIFO | _RESET),
        ("sched_nice", -20), ("torpor_ioprio", 1 << 13), ("torpor_io_flusher", 1),
    ],
)  # fmt: skip
def test_a_thread_that_goes_before_others_is_refused(field: str, value: int) -> None:
    with pytest.raises(NotPermittedError, match=rf"core-9\.img: thread_core: {field}") as caught:
        precedence.check_thread(thread(**{field: value}))
    assert "--trust" in caught.value.describe()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sched_policy", 0), ("sched_policy", _BATCH), ("sched_policy", _BATCH | _RESET), ("sched_nice", 19),
        ("torpor_ioprio", 2 << 13 | 4), ("torpor_ioprio", 3 << 13),
    ],
)  # fmt: skip
def test_one_that_does_not_is_allowed(field: str, value: int) -> None:
    precedence.check_thread(thread(**{field: value}))


def test_our_own_nice_value_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpriority", lambda which, who: -5)
    precedence.check_thread(thread(sched_nice=-5))
    with pytest.raises(NotPermittedError):
        precedence.check_thread(thread(sched_nice=-6))


@pytest.mark.parametrize(
    ("ours", "asked", "is_allowed"), [("0\n", -1, False), ("-500\n", -500, True), ("100\n", 0, True)]
)
def test_nobody_is_spared_before_us(ours: str, asked: int, is_allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "read_small", lambda path: ours)
    if is_allowed:
        precedence.check_process(process(oom_score_adj=asked))
    else:
        with pytest.raises(NotPermittedError, match="oom_score_adj"):
            precedence.check_process(process(oom_score_adj=asked))


def test_a_session_that_goes_before_others_is_refused() -> None:
    precedence.check_process(process(torpor_autogroup_nice=3))
    with pytest.raises(NotPermittedError, match="torpor_autogroup_nice"):
        precedence.check_process(process(torpor_autogroup_nice=-1))


@pytest.mark.parametrize("number", [_RLIMIT_NICE, _RLIMIT_RTPRIO])
def test_limits_that_would_allow_it_later_are_refused(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (0, 7))
    asking = process()
    asking.core.tc.rlimits.rlimits[number].max = 7
    precedence.check_process(asking)
    asking.core.tc.rlimits.rlimits[number].max = 8
    with pytest.raises(NotPermittedError, match=r"RLIMIT_.* of 8, above ours of 7"):
        precedence.check_process(asking)
    precedence.check_process(process(limits=3))
