"""A client on the host and a server in a container: the connection goes through runc, bytes in flight both ways."""

import pytest

from harness.neighbour import joined_namespace
from harness.runc import Container
from harness.streams import NearEnd

pytestmark = [pytest.mark.root, pytest.mark.real, pytest.mark.usefixtures("own_network")]

N_CYCLES = 5
_PORT = 7777
#: Sends back whatever it gets.
_ECHO = ["busybox", "nc", "-l", "-p", str(_PORT), "-e", "cat"]


@pytest.mark.parametrize("address", ["10.213.7.2", "fd13:7::2"])
def test_nothing_is_lost_or_doubled(address: str) -> None:
    with joined_namespace() as keeper, Container(_ECHO) as container:
        for namespace in container.config["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/proc/{keeper}/ns/net"
        container.run()
        near = NearEnd(address, _PORT)
        for _ in range(N_CYCLES):
            container.checkpoint("--tcp-established")
            container.restore("--tcp-established")
            assert near.is_talking
        container.checkpoint("--tcp-established", "--leave-running")
        sent, received = near.finish()
        assert sent == received > 0
