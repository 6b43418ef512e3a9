"""Which containers of a pod are woken, and what is said when one of them cannot be."""

import json
from pathlib import Path

import pytest

from torpor.base.errors import EngineError, UsageError
from torpor.containers import left_locked, waking
from torpor.containers.model import Container, Restored, Words
from torpor.containers.podman import Podman

_POD = "p" * 64


def _container(name: str, state: str, pod: str = _POD) -> Container:
    return Container("podman", name, (name * 64)[:64], state, pid=7 if state == "running" else 0, pod=pod)


class _Podman(Podman):
    """Knows some containers, of which those in *asleep* have a checkpoint."""

    def __init__(self, *asleep: str, refuses: str = "") -> None:
        self.asleep, self.refuses, self.woken = asleep, refuses, list[str]()

    def containers(self) -> list[Container]:
        states = {"infra": "running", "web": "exited", "db": "exited", "once": "exited", "cache": "running"}
        return [_container(*each) for each in states.items()] + [_container("other", "exited", "")]

    def stored_checkpoint(self, container: Container) -> Path:
        if container.name not in self.asleep:
            raise EngineError("none")
        return Path("/nowhere")

    def restore(self, container: Container, words: Words) -> Restored:
        if container.name == self.refuses:
            raise EngineError("it cannot be")
        self.woken.append(container.name)
        return Restored(_container(container.name, "running"))


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of those whose network has been let go."""
    inside = [{"Id": (name * 64)[:64]} for name in ("infra", "web", "db", "once", "cache")]
    monkeypatch.setattr(waking, "run", lambda *line: json.dumps({"Containers": inside}))
    monkeypatch.setattr(left_locked, "table_of", lambda place: "table")
    monkeypatch.setattr(left_locked, "shares_shm", lambda container, table: False)
    found: list[str] = []
    monkeypatch.setattr(left_locked, "let_go", lambda container, table: found.append(container.name))
    return found


def test_those_wake_that_sleep_and_no_others(monkeypatch: pytest.MonkeyPatch, released: list[str]) -> None:
    podman = _Podman("web", "db", "other", "cache")
    monkeypatch.setattr(waking, "PODMAN", podman)
    assert [each.container.name for each in waking.restore_pod("shop", ())] == ["web", "db"]
    assert podman.woken == released == ["web", "db"]


def test_where_none_sleeps_that_is_said(monkeypatch: pytest.MonkeyPatch, released: list[str]) -> None:
    monkeypatch.setattr(waking, "PODMAN", _Podman("other"))
    with pytest.raises(UsageError, match="nothing of pod:shop sleeps"):
        waking.restore_pod("shop", ())
    assert released == []


def test_who_sleeps_still_is_said(monkeypatch: pytest.MonkeyPatch, released: list[str]) -> None:
    monkeypatch.setattr(waking, "PODMAN", _Podman("web", "db", refuses="db"))
    with pytest.raises(EngineError) as caught:
        waking.restore_pod("shop", ())
    assert released == ["web"] and caught.value.__notes__ == ["podman:db sleeps still"]
