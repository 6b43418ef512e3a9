import os

import pytest

from torpor.cli.criu.dump import cgroup_policy
from torpor.cli.criu.parse import parse


@pytest.mark.parametrize(
    ("words", "uid", "mode"),
    [
        ("", 0, "soft"), ("", 1000, "ignore"), ("--unprivileged", 0, "ignore"), ("--manage-cgroups", 1000, "soft"),
        ("--manage-cgroups=strict", 0, "strict"),
    ],
)  # fmt: skip
def test_who_manages_control_groups(words: str, uid: int, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert cgroup_policy(parse(f"dump -t 1 {words}".split())[0]).mode == mode


def test_roots_are_told_apart() -> None:
    words = "restore --cgroup-root /a --cgroup-root pids:/b --cgroup-root :/c --cgroup-root name=x:y:/d"
    policy = cgroup_policy(parse(words.split())[0])
    assert policy.roots == ((None, "/a"), ("pids", "/b"), ("", "/c"), ("name=x:y", "/d"))
