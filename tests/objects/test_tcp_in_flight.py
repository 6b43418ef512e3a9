"""TCP connections to the outside, bytes in flight both ways, through many checkpoints: nothing is lost or doubled."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from harness import engine
from harness.events import ProcessWatch
from harness.neighbour import joined_namespace
from harness.streams import FarEnd, NearEnd

pytestmark = pytest.mark.root

N_CYCLES = 8


def _tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


def _check(far: FarEnd, near: NearEnd) -> None:
    sent, received = near.finish()
    assert far.counts() == (received, sent)
    assert sent > 0
    assert received > 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_on_the_host(address: str) -> None:
    with FarEnd() as far:
        far.listen(address)
        near = NearEnd(address, far.port)
        for _ in range(N_CYCLES):
            far.sleep_and_wake()
            assert near.is_talking
        assert "CRIU" not in _tables()
        _check(far, near)


@pytest.mark.parametrize("method", ["nftables", "iptables"])
def test_left_running(method: str) -> None:
    with FarEnd() as far:
        far.listen("127.0.0.1")
        near = NearEnd("127.0.0.1", far.port)
        for _ in range(N_CYCLES):
            engine.dump(
                far.pid, far.images, leave_running=True, options=["--tcp-established", f"--network-lock={method}"]
            )
            assert near.is_talking
        assert "CRIU" not in _tables()
        _check(far, near)


class _InNamespace(FarEnd):
    """In a network namespace that somebody else keeps, as container engines do."""

    def __init__(self, keeper: int) -> None:
        super().__init__()
        self._netns = os.open(f"/proc/{keeper}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.dump_options = ("--tcp-established", "--external", f"net[{os.fstat(self._netns).st_ino}]:kept")

    def restore(self) -> None:
        options = ["--tcp-established", "--inherit-fd", f"fd[{self._netns}]:kept"]
        pid = engine.restore(self.images, options=options, pass_fds=[self._netns])
        if self.root is not None:
            self.root.close()
        self.root = ProcessWatch(pid)

    def close(self) -> None:
        os.close(self._netns)
        super().close()


@pytest.fixture
def keeper() -> Iterator[int]:
    with joined_namespace() as pid:
        yield pid


@pytest.mark.parametrize("address", ["10.213.7.2", "fd13:7::2"])
def test_in_a_namespace_of_its_own(keeper: int, address: str) -> None:
    enter = ["nsenter", "-n", "-t", str(keeper)]
    with _InNamespace(keeper) as far:
        far.listen(address, enter)
        near = NearEnd(address, far.port)
        for _ in range(N_CYCLES):
            far.sleep_and_wake()
            assert near.is_talking
        tables = subprocess.run([*enter, "nft", "list", "tables"], capture_output=True, text=True, check=True)
        assert "CRIU" not in tables.stdout
        _check(far, near)
