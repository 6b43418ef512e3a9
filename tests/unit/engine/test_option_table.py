"""The table of options: every face takes its options, defaults and conversions from it, and nothing else has any."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import torpor
from torpor.base.records import fields
from torpor.cli import process_options
from torpor.cli.criu.dump import cgroup_policy, policies
from torpor.cli.criu.options import Options
from torpor.cli.criu.parse import parse
from torpor.engine.option_table import (
    CHECK,
    CHECKPOINT,
    FLAG,
    OPTIONS,
    RESTORE,
    SWITCH,
    Option,
    of_arguments,
    of_command_line,
)
from torpor.engine.options import DumpOptions, RestoreOptions, policies_of
from torpor.images import messages as m
from torpor.objects.cgroup.model import CgroupPolicy
from torpor.objects.policy import FilePolicy, MountPolicy, NetworkPolicy, Policies, TerminalPolicy
from torpor.rpc.words import BY_HAND, words_of

_FUNCTIONS: dict[str, Callable[..., object]] = {CHECK: torpor.examine, CHECKPOINT: torpor.dump, RESTORE: torpor.restore}
_POLICIES = {
    "policies": Policies,
    "files": FilePolicy,
    "network": NetworkPolicy,
    "mounts": MountPolicy,
    "terminals": TerminalPolicy,
    "cgroups": CgroupPolicy,
    "dump": DumpOptions,
    "restore": RestoreOptions,
}
#: Of DumpOptions and RestoreOptions: what is no option, but the other policies, whom to call, and what only one face
#: knows of itself.
_NO_OPTIONS = {
    "policies": {"files", "network", "mounts", "terminals"},
    "network": {"holds_all"},
    "dump": {
        "policies",
        "cgroups",
        "tracker",
        "notify",
        "commit",
        "notes",
        "also",
        "last_words",
        "unsettled",
        "made_by",
        "owns_directory",
        "pages",
        "give",
        "once_more",
        "later",
    },
    "restore": {
        "policies",
        "cgroups",
        "policy",
        "notify",
        "orphan_master",
        "guarded",
        "renames",
        "later",
        "ahead",
        "template",
    },
}
#: Arguments of Python's functions for the same.
_NO_OPTIONS_IN_PYTHON = {
    "pid",
    "path",
    "ahead",
    "template",
    "later",
    "made_by",
    "commit",
    "notes",
    "also",
    "last_words",
    "pages",
    "give",
    "once_more",
    "parent",
    "tracker",
    "renames",
    "notify",
    "others",
}
#: Fields of criu_opts that are no option: whom it is about, what is to be told, and where from.
_NO_OPTIONS_BY_RPC = {"notify_scripts", "pidfd_store_sk", "log_to_stderr"}


def _id(option: Option) -> str:
    return option.name


def test_each_name_is_there_once() -> None:
    names = [option.name for option in OPTIONS]
    assert len(names) == len(set(names))
    shorts = [option.short for option in OPTIONS if option.short]
    assert len(shorts) == len(set(shorts))
    assert all(option.text for option in OPTIONS)


def test_each_field_of_a_policy_is_set_by_one_option() -> None:
    """So that the defaults of the policies' own classes are nobody's."""
    places = [place for option in OPTIONS for place in option.sets.split()]
    assert len(places) == len(set(places))
    for policy, cls in _POLICIES.items():
        named = {place.partition(".")[2] for place in places if place.startswith(f"{policy}.")}
        assert named == {field.name for field in fields(cls)} - _NO_OPTIONS.get(policy, set()), policy
    assert {place.partition(".")[0] for place in places} == set(_POLICIES)


def test_a_parsed_command_line_has_a_field_of_the_right_type_for_each() -> None:
    options, types = Options(), inspect.get_annotations(Options)
    assert set(types) == {option.field for option in OPTIONS if option.takes} | {"command"}
    for option in OPTIONS:
        if option.takes:
            value = getattr(options, option.field)
            wanted = "None" if value is None else type(value).__name__
            assert wanted in types[option.field].replace("[", " ").split() or wanted in types[option.field], option.name
            assert isinstance(option.default, bool) == (option.takes in (FLAG, SWITCH)) or option.name == "ext-unix-sk"


def test_what_nobody_has_said_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    told = of_command_line(parse(["--no-default-config", "dump"])[0])
    for option in OPTIONS:
        for place in option.sets.split():
            policy, _, field = place.partition(".")
            if option.name != "manage-cgroups":
                assert told[policy][field] == option.as_set(option.default), option.name
    assert told["cgroups"]["mode"] == "soft"
    assert told["files"]["ghost_limit"] is None and not told["files"]["file_locks"]
    assert policies(Options()) == policies_of(told)
    assert cgroup_policy(Options()) == CgroupPolicy(**told["cgroups"])


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.people], ids=_id)
def test_python_has_the_same_default_as_the_table(option: Option) -> None:
    people = option.people
    assert people is not None
    for command in people.at:
        parameters = inspect.signature(_FUNCTIONS[command]).parameters
        if command != CHECK or option.keyword in parameters:
            assert parameters[option.keyword].default == option.peoples_default
    differs = option.peoples_default != option.as_set(option.default)
    assert differs == bool(people.why), "a default that is not criu's has its reason, and no other has one"
    for place in option.sets.split():
        policy, _, field = place.partition(".")
        assert of_arguments()[policy][field] == option.peoples_default


@pytest.mark.parametrize("command", _FUNCTIONS)
def test_python_has_no_argument_that_the_table_does_not_know(command: str) -> None:
    known = {option.keyword for option in OPTIONS if option.people and command in option.people.at}
    assert set(inspect.signature(_FUNCTIONS[command]).parameters) - _NO_OPTIONS_IN_PYTHON <= known


def test_an_argument_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        of_arguments(colour="blue")


def test_the_torpor_command_says_the_defaults_of_the_table() -> None:
    for option in process_options.OPTIONS:
        row = next(row for row in OPTIONS if row.keyword == option.keyword)
        if option.value and isinstance(row.peoples_default, int):
            assert f"(default: {row.peoples_default >> 20})" in option.text


def test_every_field_of_criu_opts_is_an_options() -> None:
    there = {field.name for field in m.criu_opts.DESCRIPTOR.fields}
    named = {field for option in OPTIONS for field in option.rpc.split()}
    assert named <= there and named >= BY_HAND
    assert there - named == _NO_OPTIONS_BY_RPC & there


@pytest.mark.parametrize("option", [o for o in OPTIONS if set(o.rpc.split()) - BY_HAND], ids=_id)
def test_what_comes_by_rpc_is_said_in_the_options_words(option: Option) -> None:
    for field in set(option.rpc.split()) - BY_HAND:
        value: object = {bool: True, int: 7, type(None): 7, str: "x", tuple: ["x"]}[type(option.default)]
        words = words_of(m.criu_opts(**{field: value}), str)  # type: ignore[arg-type]
        said = getattr(parse(["--no-default-config", *words])[0], option.field)
        assert said == value
        assert [word for word in words if word.startswith(f"--{option.name}")]


def test_the_support_matrix_is_made_of_it(repository: Path) -> None:
    line = [sys.executable, str(repository / "tools/gen_options.py"), "--check"]
    done = subprocess.run(line, check=False)
    assert done.returncode == 0, "docs/support-matrix.md is not what the table says: python tools/gen_options.py"
