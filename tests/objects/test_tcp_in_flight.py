"""TCP connections to the outside, bytes in flight both ways, through many checkpoints: nothing is lost or doubled."""

import subprocess
from collections.abc import Iterator

import pytest

from harness import engine
from harness.neighbour import joined_namespace
from harness.streams import FarEnd, InNamespace, NearEnd

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

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


@pytest.fixture
def keeper() -> Iterator[int]:
    with joined_namespace() as pid:
        yield pid


@pytest.mark.parametrize("address", ["10.213.7.2", "fd13:7::2"])
def test_in_a_namespace_of_its_own(keeper: int, address: str) -> None:
    enter = ["nsenter", "-n", "-t", str(keeper)]
    with InNamespace(keeper) as far:
        far.listen(address, enter)
        near = NearEnd(address, far.port)
        for _ in range(N_CYCLES):
            far.sleep_and_wake()
            assert near.is_talking
        tables = subprocess.run([*enter, "nft", "list", "tables"], capture_output=True, text=True, check=True)
        assert "CRIU" not in tables.stdout
        _check(far, near)
