"""What is told of a pod, what is taken from who tells it, and what is refused."""

from typing import Any

import pytest

from torpor.base.errors import MigrationError, RefusedError
from torpor.containers import pods
from torpor.containers.model import Container
from torpor.containers.pods import Pod
from torpor.migrate.link import Message

_INFRA = Container("podman", "i-infra", "i" * 64, "running", 1)
_MEMBER = Container("podman", "web", "w" * 64, "running", 2, pod="p" * 64)


def _pod(shares: tuple[str, ...] = ("ipc", "net", "uts")) -> Pod:
    return Pod("shop", "p" * 64, _INFRA, [_MEMBER], sorted(shares), [("network", "none")], [])


def _told(**host: Any) -> dict[str, Any]:
    theirs = f"container:{_INFRA.id}"
    config = {"NetworkMode": theirs, "IpcMode": theirs, "UTSMode": theirs, "PidMode": "private", **host}
    return {"HostConfig": config, "Dependencies": [_INFRA.id]}


def test_who_shares_what_the_pod_does_is_moved() -> None:
    pods.check_member(_pod(), _MEMBER, _told())
    pods.check_member(_pod(("net",)), _MEMBER, _told(IpcMode="shareable", UTSMode=""))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"IpcMode": "private"}, "another ipc namespace"),
        ({"NetworkMode": "bridge"}, "another net namespace"),
        ({"PidMode": f"container:{_INFRA.id}"}, "another pid namespace"),
        ({"AutoRemove": True}, "--rm"),
    ],
)
def test_who_shares_only_a_part_is_refused_by_name(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match="podman:web") as caught:
        pods.check_member(_pod(), _MEMBER, _told(**changed))
    assert words in str(caught.value)


def test_who_needs_other_containers_is_refused() -> None:
    with pytest.raises(RefusedError, match="depends on other containers"):
        pods.check_member(_pod(), _MEMBER, _told() | {"Dependencies": [_INFRA.id, "o" * 64]})


def test_what_is_told_makes_the_same_pod() -> None:
    message = Message("offer", pods.fields(_pod()))
    assert pods.create_line("shop", message) == ["pod", "create", "--name=shop", "--network=none"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("-shop", []),
        ("shop", [["volume", "/:/host"]]),
        ("shop", [["network", "none", "more"]]),
        ("shop", [["hostname", "a\0b"]]),
        ("shop", "network"),
    ],
)
def test_what_a_stranger_tells_is_looked_at(name: str, words: object) -> None:
    with pytest.raises(MigrationError):
        pods.create_line(name, Message("offer", {"pod_words": words}))


def test_options_that_nothing_else_tells_of_are_seen() -> None:
    line = ["podman", "pod", "create", "--name", "shop", "--sysctl=a=b", "-p8080:80", "--device", "/dev/null"]
    assert list(pods._options_of(line)) == ["name", "sysctl", "p", "device"]
    assert list(pods._options_of(["podman", "run", "--pod", "new:shop"])) == []
