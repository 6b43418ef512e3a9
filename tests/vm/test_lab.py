"""The lab's own pieces, without a machine."""

import os
from pathlib import Path
from typing import Literal

import pytest

from vm import machine, objects, summary
from vm.objects import Outcome

_JUNIT = """<testsuites><testsuite>
<testcase classname="tests.objects.test_pipe" name="a"/>
<testcase classname="tests.objects.test_pipe" name="b">
<failure message="x">(00.1) Error (a.py:1): no room</failure></testcase>
<testcase classname="tests.objects.test_numa" name="a"><skipped message="missing: a second node"/></testcase>
<testcase classname="tests.objects.test_memfd" name="a"><failure message="x">(00.1) Error (a.c:1): cannot seal
(00.1) Error (b.c:2): Dump files (pid: 5) failed with -1
(00.1) Error (c.c:3): Restoring FAILED.</failure></testcase>
<testcase classname="tests.objects.test_epoll" name="a"><failure message="x">E   WorkloadError: epoll failed
E   status: fail: no event</failure></testcase>
<testcase classname="tests.objects.test_udp" name="a"/>
<testcase classname="" name=""/>
</testsuite></testsuites>"""


def test_the_worst_of_an_object_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "junit.xml").write_text(_JUNIT)
    found = objects.outcomes("6.1", "6.1.0-1", tmp_path / "junit.xml")
    assert [(each.name, each.result, each.reason) for each in found] == [
        ("epoll", "failed", "the program: no event"),
        ("memfd", "failed", "cannot seal"),
        ("numa", "missing", "a second node"),
        ("pipe", "failed", "no room"),
        ("udp", "passed", ""),
    ]
    monkeypatch.setattr(objects, "RESULTS", tmp_path / "kept.tsv")
    objects.keep([Outcome("6.12 peer", "6.12.1", "udp", "failed", "x")])
    objects.keep([Outcome("6.12", "6.12.1", "udp", "failed", "x")])
    objects.keep(found)
    objects.keep([Outcome("6.12", "6.12.2", "udp", "passed", "")])
    kept = [(each.kernel, each.name, each.release) for each in objects.read()]
    assert [each for each in kept if each[1] not in ("epoll", "memfd")] == [
        ("6.1", "numa", "6.1.0-1"), ("6.1", "pipe", "6.1.0-1"), ("6.1", "udp", "6.1.0-1"), ("6.12", "udp", "6.12.2"),
        ("6.12 peer", "udp", "6.12.1"),
    ]  # fmt: skip


def test_a_run_that_was_cut_off_says_what_it_had(tmp_path: Path) -> None:
    output = """
tests/objects/test_pipe.py::test_pipe[host] PASSED                       [ 11%]
tests/objects/test_udp.py::test_udp[host] PASSED                         [ 22%]
tests/objects/test_udp.py::test_more[host] FAILED                        [ 33%]
tests/objects/test_tcp.py::test_tcp[host] PASSED                         [ 44%]
tests/objects/test_tcp.py::test_more[host] """
    found = objects.outcomes("6.1", "6.1.0-1", tmp_path / "no-junit.xml", output)
    assert [(each.name, each.result) for each in found] == [("pipe", "passed"), ("udp", "failed")]
    (tmp_path / "junit.xml").write_text(_JUNIT)
    interrupted = "tests/objects/test_udp.py::test_more[host] \n!!!!!!!!! KeyboardInterrupt !!!!!!!!!\n"
    found = objects.outcomes("6.1", "6.1.0-1", tmp_path / "junit.xml", interrupted)
    assert [each.name for each in found] == ["epoll", "memfd", "numa", "pipe"]


def test_what_a_killed_machine_has_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_FRESH_S", -1)
    left, used = tmp_path / "torpor-lab-left", tmp_path / "torpor-lab-used"
    left.mkdir()
    used.mkdir()
    (left / "disk.ext4").touch()
    fd = machine._lock(used)
    machine._remove_abandoned(tmp_path)
    os.close(fd)
    assert (left.exists(), used.exists()) == (False, True)


def test_the_last_lines_say_what_came_of_each_kernel() -> None:
    def report(name: str, outcome: Literal["passed", "failed", "skipped"], found: object = None) -> pytest.TestReport:
        properties = [(objects.COUNTED, found)] if found else []
        where = (name, None, "")
        return pytest.TestReport(name, where, {}, outcome, None, "call", user_properties=properties)

    looked_at = objects.counts(Outcome("6.1", "6.1.0", name, "passed", "") for name in ("udp", "pipe"))
    stats = {
        "passed": [
            report("tests/vm/test_in_smoke.py::test_a_process_is_carried[6.12]", "passed"),
            report("tests/vm/test_in_reboot.py::test_containers_count_on", "passed"),
            report("tests/vm/test_lab.py::test_a_run", "passed"),
        ],
        "failed": [report("tests/vm/test_in_objects.py::test_objects[6.1]", "failed", looked_at)],
        "error": [report("tests/vm/test_in_confined.py::test_a_confined_server[6.1-selinux]", "failed")],
    }
    assert summary.lines(stats) == [
        "6.1: 2 tests failed, 2 objects passed",
        "6.12: 1 tests passed",
        "several kernels: 1 tests passed",
    ]
