import os
from collections.abc import Callable
from pathlib import Path

import pytest

from torpor.base.errors import RestoreError, UsageError
from torpor.base.fds import OwnedFd
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


def test_what_is_as_in_a_new_group_is_left_out_where_few_kernels_have_it(tmp_path: Path) -> None:
    written = {
        "memory.swap.high": "max", "memory.zswap.max": "4096", "io.latency": "8:0 target=75000\n8:16 target=9",
        "io.bfq.weight": "default 100", "pids.max": "max", "hugetlb.2MB.max": "max", "hugetlb.1GB.rsvd.max": "0",
    }  # fmt: skip
    for name, value in written.items():
        (tmp_path / name).write_text(f"{value}\n")
    with OwnedFd(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)) as directory:
        found = properties.dump(directory.fileno(), properties.Table().of(""))
        assert [(entry.name, entry.value) for entry in found] == [
            ("pids.max", "max"), ("memory.zswap.max", "4096"), ("io.latency", "8:0 target=75000"),
            ("io.latency", "8:16 target=9"), ("hugetlb.1GB.rsvd.max", "0"),
        ]  # fmt: skip
        (tmp_path / "memory.zswap.max").write_text("")
        properties.restore(directory.fileno(), found[1:2], "group")
        assert (tmp_path / "memory.zswap.max").read_text() == "4096"


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


@pytest.mark.parametrize("has_processes", [False, True])
def test_those_above_a_new_group_hand_on_what_it_had(
    has_processes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "unified"
    (top / "lab.slice").mkdir(parents=True)
    has = {top: ("cpu memory pids", "cpu pids"), top / "lab.slice": ("cpu memory pids", "")}
    for directory, (controllers, handed_on) in has.items():
        (directory / "cgroup.controllers").write_text(f"{controllers}\n")
        (directory / "cgroup.subtree_control").write_text(f"{handed_on}\n")
    # The machine's root has no type, and hands on what it likes.
    (top / "cgroup.procs").write_text("1\n")
    (top / "lab.slice/cgroup.type").write_text("domain\n")
    (top / "lab.slice/cgroup.procs").write_text("77\n" if has_processes else "")
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(Yard, "write", lambda yard, hierarchy, path, name, value: written.append((path, value)))
    controller = m.cg_controller_entry(cnames=[""])
    head = controller.dirs.add(dir_name="lab.slice/x.service")
    for name in ("pids.max", "memory.max", "io.max", "cgroup.max.depth"):
        head.properties.add(name=name, value="7")
    # What is below it has what the image says that it hands on.
    head.children.add(dir_name="below").properties.add(name="cpu.weight", value="7")
    maker = Maker(Yard(str(tmp_path)), model.SOFT, [])
    try:
        maker.make(controller)
        by_slice = [] if has_processes else [("/lab.slice", "+memory"), ("/lab.slice", "+pids")]
        assert written == [("/", "+memory"), *by_slice]
        maker.undo()
        # Where nobody is left below: the last that is written to this file.
        assert (top / "cgroup.subtree_control").read_text() == "cpu pids\n"
        assert (top / "lab.slice/cgroup.subtree_control").read_text() == ("\n" if has_processes else "-memory")
    finally:
        maker.close()
