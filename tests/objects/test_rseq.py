"""Restartable sequences: of a program's own, and those that the C library has registered for its threads."""

import os
from contextlib import nullcontext

import pytest

from harness import engine, without
from harness.flavours import Flavour, carry_through, start, workload_test
from harness.workload import Workload
from torpor.base.ids import Pid
from torpor.tracee import rseq

test_rseq_of_the_library = workload_test("rseq_library")

#: An area of the workload's own can be registered only where the C library has none.
_OWN = ["env", "GLIBC_TUNABLES=glibc.pthread.rseq=0"]


@pytest.mark.root
@pytest.mark.parametrize("flavour", [Flavour.HOST, Flavour.HOST_RUNNING])
@pytest.mark.parametrize("name", ["", "rseq"])
def test_rseq(name: str, flavour: Flavour) -> None:
    with Workload.start("rseq", prefix=_OWN) as workload:
        workload.wait_ready()
        with engine.using(without.engine(name)) if name else nullcontext():
            carry_through(flavour, workload)
        workload.expect_pass()


@pytest.mark.root
@pytest.mark.parametrize("name", ["rseq", "linux-5.10"])
def test_where_no_kernel_tells_it_is_looked_for(name: str) -> None:
    with start(Flavour.HOST, "rseq_library") as workload:
        workload.wait_ready()
        with engine.using(without.engine(name)):
            carry_through(Flavour.HOST, workload)
        workload.expect_pass()


@pytest.mark.root
def test_what_is_not_found_is_refused() -> None:
    with Workload.start("rseq_library", ["elsewhere"], prefix=_OWN) as workload:
        workload.wait_ready()
        with (
            engine.using(without.engine("rseq")),
            pytest.raises(engine.EngineError, match=r"rseq\), and this kernel .* does not tell where"),
        ):
            workload.dump()
        workload.expect_pass()


def test_without_thread_local_storage_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rseq, "read_thread_pointer", lambda tid: 0)
    assert rseq.likely_areas(Pid(os.getpid())) == []


@pytest.mark.root
def test_where_there_is_none_none_is_looked_for() -> None:
    with Workload.start("threads", prefix=_OWN) as workload:
        workload.wait_ready()
        with engine.using(without.engine("rseq")):
            carry_through(Flavour.HOST, workload)
        workload.expect_pass()
