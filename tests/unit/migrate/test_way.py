"""Where a migration goes: how a host is named, and what is run to get there."""

import pytest

from torpor.base.errors import UsageError
from torpor.migrate.way import RSH_VARIABLE, Destination, command_line, destination


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("b", Destination("b")),
        ("ssh://root@example.org:2222", Destination("example.org", "root", 2222)),
        ("root@10.77.0.3", Destination("10.77.0.3", "root")),
        ("ssh://[fd00::2]:22/", Destination("fd00::2", "", 22)),
    ],
)
def test_hosts_as_users_name_them(word: str, meant: Destination) -> None:
    assert destination(word) == meant


@pytest.mark.parametrize(
    "word", ["", "-oProxyCommand=x", "ssh:" + "//-l@b", "a b", "b:99999", "http:" + "//b", "u@", "b:x"]
)
def test_what_names_no_host(word: str) -> None:
    with pytest.raises(UsageError):
        destination(word)


def test_what_is_run_there_is_one_word_for_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RSH_VARIABLE, raising=False)
    line = command_line(Destination("b", "root", 22), ["/opt/my torpor", "receive"])
    assert line[0] == "ssh" and line[-6:] == ["-p", "22", "-l", "root", "b", "'/opt/my torpor' receive"]
    monkeypatch.setenv(RSH_VARIABLE, "ssh -J jump")
    assert command_line(Destination("b"), ["x"])[:3] == ["ssh", "-J", "jump"]
    assert command_line(Destination("b"), ["x"], "/opt/rsh -v") == ["/opt/rsh", "-v", "b", "x"]
