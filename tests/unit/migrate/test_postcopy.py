"""Memory that goes when the tree runs there: who gives it says when it may, and comes again when the way has broken."""

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from torpor.kernel.vm import PAGE_SIZE
from torpor.migrate import postcopy, protocol
from torpor.migrate.connection import Connection
from torpor.migrate.link import FAILED, FailedThereError, Link, own_socket
from torpor.migrate.postcopy import Giver
from torpor.migrate.sources import RemoteSource
from torpor.migrate.wire import WireError

PAGE = bytes(range(256)) * (PAGE_SIZE // 256)


class Both:
    """A giver, and the other side's ends: of the link, and of each connection that the giver has had."""

    def __init__(self) -> None:
        near, far = socket.socketpair()
        self.link, link = own_socket(far, "the source"), own_socket(near, "there")
        self.ends: list[Connection] = []
        self.events: list[str] = []
        self.giver = Giver(link, self._come(), self._come)
        self.giver.ready_within_s = 5.0
        self.giver.commit = lambda: self.events.append("commit")
        self.came: list[BaseException] = []
        #: What writing the rest into the images here comes to.
        self.failures: list[OSError] = []
        self._link = link
        self._thread = threading.Thread(target=self._give)

    def _come(self) -> Connection:
        near, far = socket.socketpair()
        self.ends.append(Connection(far, "the source"))
        return Connection(near, "there")

    def read(self, ident: int, start: int, n_bytes: int, /) -> memoryview:
        return memoryview(bytearray(PAGE))

    def never_again(self) -> None:
        self.events.append("never again")

    def complete(self) -> None:
        self.events.append("complete")
        if self.failures:
            raise self.failures.pop()

    def _give(self) -> None:
        try:
            self.giver.give(self)
        except BaseException as error:
            self.came.append(error)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def close(self) -> None:
        for each in (self.giver, *self.ends):
            each.close()
        for link in (self.link, self._link):
            link.close()


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    monkeypatch.setattr(postcopy, "_RETRY_S", 0.01)
    made = Both()
    made.start()
    yield made
    made.end()
    made.close()


def ask(connection: Connection) -> RemoteSource:
    source = RemoteSource(connection)
    source.ask(1, 0x1000, PAGE_SIZE)
    while (found := source.answer()) is None:
        pass
    assert bytes(found) == PAGE
    return source


def test_pages_go_before_and_after_go(both: Both) -> None:
    ask(both.ends[0])
    assert both.events == []
    both.link.send(protocol.READY)
    both.link.expect(protocol.GO)
    assert both.events == ["commit", "never again"]
    ask(both.ends[0]).finish()
    both.end()
    assert both.giver.is_complete and both.came == []


def test_who_hangs_up_before_go_is_an_error(both: Both) -> None:
    both.ends[0].close()
    both.end()
    assert [type(error) for error in both.came] == [WireError] and both.events == []


def test_a_destination_that_fails_before_go_is_not_told_go(both: Both) -> None:
    both.giver.commit = lambda: both.link.send(FAILED, text="no room")
    both.link.send(protocol.READY)
    both.end()
    assert [type(error) for error in both.came] == [FailedThereError] and both.events == []


def test_the_source_comes_again_when_the_way_has_broken(both: Both) -> None:
    both.link.send(protocol.READY)
    both.link.expect(protocol.GO)
    ask(both.ends[0])
    both.ends[0].close()
    while len(both.ends) < 2:
        pass
    ask(both.ends[1]).finish()
    both.end()
    assert both.giver.is_complete and both.giver.n_broken == 1 and both.came == []


def test_a_destination_that_has_failed_is_not_come_to_again(both: Both) -> None:
    both.link.send(protocol.READY)
    both.link.expect(protocol.GO)
    both.link.send(FAILED, text="no room")
    both.ends[0].close()
    both.end()
    assert [type(error) for error in both.came] == [FailedThereError] and not both.giver.is_complete


def _has_gone(both: Both) -> None:
    """The other side is told "go", and gone."""
    both.link.send(protocol.READY)
    both.link.expect(protocol.GO)
    both.ends[0].close()


def test_after_go_nothing_else_has_it_run_here_again(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not reached again may run it all the same: the rest is kept here, and giving ends."""
    monkeypatch.setattr(postcopy, "AGAIN_WITHIN_S", 0.0)
    _has_gone(both)
    both.end()
    assert both.came == [] and both.events[2:] == ["complete"]
    assert both.giver.is_kept and not both.giver.is_complete


def test_what_cannot_be_kept_stays_stopped_until_it_can(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postcopy, "AGAIN_WITHIN_S", 0.0)
    both.failures += [OSError(28, "No space left on device")] * 2
    _has_gone(both)
    both.end()
    assert both.came == [] and both.events[2:] == ["complete"] * 3 and both.giver.is_kept


def test_who_comes_after_that_gets_the_rest_all_the_same(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postcopy, "AGAIN_WITHIN_S", 0.0)
    both.failures.append(OSError(28, "No space left on device"))
    full = both.complete

    def complete() -> None:
        monkeypatch.setattr(postcopy, "AGAIN_WITHIN_S", 60.0)
        full()

    monkeypatch.setattr(both, "complete", complete)
    _has_gone(both)
    while len(both.ends) < 2:
        pass
    ask(both.ends[1]).finish()
    both.end()
    assert both.events[2:] == ["complete"] and both.giver.is_complete and not both.giver.is_kept


def test_nobody_is_waited_for_where_nobody_listens_any_more(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postcopy, "_NOBODY_WITHIN_S", 0.05)

    def come() -> Connection:
        raise ConnectionRefusedError

    monkeypatch.setattr(both.giver, "_come", come)
    both.link.send(protocol.READY)
    both.link.expect(protocol.GO)
    with socket.socket(fileno=os.dup(both.link.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
    both.ends[0].close()
    both.end()
    assert both.came == [] and both.giver.is_kept


def test_one_ctrl_c_leaves_nobody_alone_who_runs_there(both: Both) -> None:
    both.link.send(protocol.READY)
    both.link.expect(protocol.GO)
    source = ask(both.ends[0])
    both.giver._ask_to_end(signal.SIGINT)
    source.ask(1, 0x1000, PAGE_SIZE)
    while source.answer() is None:
        pass
    assert not both.giver.is_kept
    both.giver._ask_to_end(signal.SIGINT)
    both.end()
    assert both.came == [] and both.events[2:] == ["complete"] and both.giver.is_kept


def test_another_signal_is_meant(both: Both) -> None:
    both.link.send(protocol.READY)
    both.link.expect(protocol.GO)
    ask(both.ends[0])
    both.giver._ask_to_end(signal.SIGTERM)
    both.end()
    assert both.came == [] and both.giver.is_kept


def test_a_link_tells_whether_something_has_come() -> None:
    near, far = socket.socketpair()
    one, other = own_socket(near, "here"), own_socket(far, "there")
    assert not one.has_message()
    other.send(protocol.RUNS)
    assert one.has_message() and one.receive().name == protocol.RUNS
    for link in (one, other):
        assert isinstance(link, Link)
        link.close()
