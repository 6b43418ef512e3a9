import os
from collections.abc import Callable
from pathlib import Path

import pytest

from torpor.base.errors import RestoreError, UsageError
from torpor.images import messages as m
from torpor.objects.cgroup import membership, model, properties, rewriting
from torpor.objects.cgroup.directories import Maker, topmost
from torpor.objects.cgroup.membership import Member
from torpor.objects.cgroup.model import CgroupPolicy
from torpor.objects.cgroup.yard import Yard
from torpor.tracee.caretaker import Caretaker


def test_the_form_of_criu_for_properties() -> None:
    text = '"a":\n - "strategy": "merge"\n - "properties": ["x", "y"]\n "b":\\n - "strategy": "replace"\n'
    text += ' - "properties": []'
    assert properties.parse_spec(text) == [("a", False, ("x", "y")), ("b", True, ())]


@pytest.mark.parametrize("text", ["a:", '"a":\n - "strategy": "add"', '"a":\n - "properties": ["x"]', '"a": 1'])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        properties.parse_spec(text)


def test_properties_are_merged_and_replaced() -> None:
    spec = '"pids":\n - "strategy": "merge"\n - "properties": ["pids.x"]\n'
    spec += '"cpu":\n - "strategy": "replace"\n - "properties": ["cpu.y"]\n'
    table = properties.Table(spec)
    assert table.of("pids")[:2] == ["pids.max", "pids.x"]
    assert table.of("cpu")[0] == "cpu.y"
    assert "cpu.shares" not in table.of("cpu")
    assert table.of("")[-1] == "cgroup.type"


def test_the_change_of_subtree_control() -> None:
    assert properties.subtree_change("cpu io", "cpu memory") == "-io +cpu +memory"
    assert properties.subtree_change("", "") == ""


def test_members_are_read_by_name() -> None:
    text = b"3:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d\n"
    assert membership.parse(text) == (Member("", "/d"), Member("cpu,cpuacct", "/a"), Member("name=systemd", "/b:c"))
    assert membership.parse(text, ("name=systemd",)) == (Member("name=systemd", "/b:c"),)


def test_a_prefix_belongs_to_what_is_inside_of_the_namespace() -> None:
    found = membership.with_prefixes([Member("", "/a/b"), Member("pids", "/ab")], {"": "/a", "pids": "/a"})
    assert [member.prefix for member in found] == [2, 0]
    assert found[0].top == "/a"


def test_heads_do_not_lie_in_each_other() -> None:
    assert topmost(["/a/b", "/a", "/c", "/", "/ab"]) == ["/", "/a", "/ab", "/c"]


def test_roots_for_controllers_and_for_the_rest() -> None:
    policy = CgroupPolicy(roots=((None, "/x/"), ("cpuacct", "y"), ("", "/z")))
    assert [policy.root_of(name) for name in ("pids", "cpu,cpuacct", "")] == ["/x", "/y", "/z"]
    assert CgroupPolicy().root_of("pids") is None


@pytest.mark.parametrize(
    ("heads", "member", "root", "want"),
    [
        (["a"], Member("pids", "/a/b"), "/n", (["n"], Member("pids", "/n/b"))),
        (["a/b"], Member("pids", "/a/b"), "/n", (["n"], Member("pids", "/n"))),
        (["a/b"], Member("pids", "/a/b", 2), "/n", (["n/b"], Member("pids", "/n/b", 2))),
        ([""], Member("pids", "/"), "/n", (["n"], Member("pids", "/n"))),
        (["a/b", "a/c"], Member("pids", "/a/c"), "/n/m", (["n/m/b", "n/m/c"], Member("pids", "/n/m/c"))),
        (["a"], Member("pids", "/a"), "/", ([""], Member("pids", "/"))),
    ],
)
def test_groups_move_with_their_root(heads: list[str], member: Member, root: str, want: object) -> None:
    controller = m.cg_controller_entry(cnames=["pids"])
    for name in heads:
        controller.dirs.add(dir_name=name)
    sets = rewriting.rewrite([controller], {2: (member,)}, CgroupPolicy(roots=(("pids", root),)))
    assert ([head.dir_name for head in controller.dirs], sets[2][0]) == want


@pytest.mark.parametrize("mode", [model.SOFT, model.STRICT])
def test_a_group_that_somebody_makes_just_before_us_is_theirs(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look and our mkdir; a directory stands for the hierarchy."""
    makes: Callable[..., None] = os.mkdir

    def second(path: str, mode: int, dir_fd: int) -> None:
        makes(path, mode, dir_fd=dir_fd)
        makes(path, mode, dir_fd=dir_fd)

    (tmp_path / "pids").mkdir()
    monkeypatch.setattr(os, "mkdir", second)
    controller = m.cg_controller_entry(cnames=["pids"])
    controller.dirs.add(dir_name="above/group").properties.add(name="pids.max", value="7")
    maker = Maker(Yard(str(tmp_path)), mode, [])
    try:
        if mode == model.STRICT:
            with pytest.raises(RestoreError, match="is there already"):
                maker.make(controller)
        else:
            maker.make(controller)
            # Nothing is written into what is not ours: there is no such file here.
            maker.set_properties()
        maker.undo()
    finally:
        # Nobody has been told to remove it when we are gone.
        monkeypatch.setattr(Caretaker, "dismiss", Caretaker.relieve)
        maker.close()
    assert (tmp_path / "pids/above/group").is_dir()
