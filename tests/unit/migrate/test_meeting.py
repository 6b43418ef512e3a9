"""An engine and a migration find each other by a name that nobody else has, and images go from one to the other."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torpor.base.errors import ActionScriptError, MigrationError
from torpor.images import kinds
from torpor.images import messages as m
from torpor.images.store import load_one, store_one
from torpor.images.stores.spooled import PlacedStore, Spool, SpooledStore
from torpor.images.stores.stream import TarStore
from torpor.migrate import meeting

_TOLD: dict[str, dict[str, Any]] = {
    "network": {"tcp_established": True},
    "dump": {"timeout_s": 10, "parent": ""},
    "policies": {"external": ("a",)},
}


def _name() -> str:
    return meeting.of_restore(os.urandom(16).hex())


def _both(engine: Callable[[str], None], migration: Callable[[meeting.Meeting], None]) -> None:
    """One side in a thread; its error is the test's."""
    name, errors = _name(), []

    def run() -> None:
        try:
            engine(name)
        except BaseException as error:
            errors.append(error)

    with meeting.Meeting(name) as place:
        thread = threading.Thread(target=run)
        thread.start()
        migration(place)
        thread.join()
    assert not errors, errors


def test_nobody_waits() -> None:
    assert meeting.knock(_name()) is None


def test_two_do_not_wait_at_one_place() -> None:
    name = _name()
    with meeting.Meeting(name), pytest.raises(MigrationError, match="under way already"):
        meeting.Meeting(name)


def test_who_waits_in_vain_hears_why() -> None:
    def check() -> None:
        raise MigrationError("the engine has failed")

    with meeting.Meeting(_name()) as place, pytest.raises(MigrationError, match="has failed"):
        place.wait(60, check)


def test_a_dump_is_asked_for_in_its_own_words() -> None:
    told = []

    def engine(name: str) -> None:
        end = meeting.knock(name)
        assert end is not None

        def notify(action: str, pid: int) -> None:
            told.append((action, pid))
            if action == "post-dump":
                raise ActionScriptError("the client said no")

        meeting.ask_to_dump(end, _TOLD, "/images", notify, stats="/work")

    def migration(place: meeting.Meeting) -> None:
        link = place.wait(60, lambda: None)
        message = link.expect(meeting.DUMP)
        assert meeting.told_of(message) == _TOLD
        assert (message.text("images"), message.text("stats")) == ("/images", "/work")
        tell = meeting.teller(link)
        tell("pre-dump", 7)
        with pytest.raises(ActionScriptError, match="said no"):
            tell("post-dump", 7)
        link.send(meeting.DONE)
        link.close()

    _both(engine, migration)
    assert told == [("pre-dump", 7), ("post-dump", 7)]


class _Way(bytearray):
    """Where a stream goes, and what reads it."""

    def write(self, data: bytes | memoryview, /) -> int:
        self += memoryview(data).cast("B")
        return memoryview(data).nbytes

    def finish(self) -> None:
        """All is here."""

    def close(self) -> None:
        """Nothing."""

    def read(self, n_bytes: int, /) -> bytes:
        found = bytes(self[:n_bytes])
        del self[:n_bytes]
        return found


def _spooled(tmp_path: Path, number: int, parent: SpooledStore | None) -> SpooledStore:
    way = _Way()
    with TarStore(way, "a way", "none", spool=str(tmp_path)) as store:
        store_one(store, "INVENTORY", m.inventory_entry(img_version=number))
        with store.open_write("pages-1.img") as stream:
            stream.write(bytes([number]) * (3 << 20))
        store.commit(None)
    return SpooledStore(way, f"round {number}", Spool(None, 1 << 30), parent=parent)


def test_rounds_and_the_last_images_go_to_the_engine(tmp_path: Path) -> None:
    rounds: list[tuple[str, int]] = []

    def engine(name: str) -> None:
        end = meeting.knock(name)
        assert end is not None
        link = meeting.link_of(end, "receive")

        def take(store: PlacedStore, root: int) -> None:
            rounds.append((store.path, root))

        last = meeting.take_images(link, take)
        before = last.parent()
        assert before is not None
        for store, number in ((last, 2), (before, 1)):
            assert load_one(store, kinds.INVENTORY).img_version == number
            with store.open_read("pages-1.img") as stream:
                assert stream.read() == bytes([number]) * (3 << 20)
            store.close()
        link.close()

    def migration(place: meeting.Meeting) -> None:
        link = place.wait(60, lambda: None)
        with _spooled(tmp_path, 1, None) as first, _spooled(tmp_path, 2, first) as last:
            meeting.give_images(link, first, root=1)
            meeting.give_images(link, last)
            with pytest.raises(MigrationError):  # until it has hung up
                link.receive()
        link.close()

    _both(engine, migration)
    assert rounds == [("round 1", 1)]


@pytest.mark.parametrize("token", ["", "../../etc/passwd", "x" * 32, "0" * 31, "0" * 32])
def test_images_that_name_no_migration_are_refused(tmp_path: Path, token: str) -> None:
    assert meeting.arrival(str(tmp_path)) is None
    (tmp_path / meeting.MARK).write_text(token)
    with pytest.raises(MigrationError, match="is over"):
        meeting.arrival(str(tmp_path))
