"""A TCP connection to the outside through both engines: either unlocks what the other has locked."""

import os
import shlex
import subprocess

import pytest

from harness import engine
from harness.streams import FarEnd, NearEnd

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("own_network")]

PEER = shlex.split(os.environ.get("TORPOR_PEER", ""))


def _rules() -> str:
    commands = (["nft", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"])
    return "".join(subprocess.run(line, capture_output=True, text=True, check=True).stdout for line in commands)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("method", ["nftables", "iptables"])
@pytest.mark.parametrize("dumper", ["peer", "ours"])
def test_connection(dumper: str, method: str, address: str) -> None:
    with FarEnd() as far:
        far.dump_options = ("--tcp-established", "--network-lock", method)
        far.listen(address)
        near = NearEnd(address, far.port)
        for _ in range(2):
            if dumper == "peer":
                with engine.using(PEER):
                    far.checkpoint()
                far.restore()
            else:
                far.checkpoint()
                with engine.using(PEER):
                    far.restore()
            assert near.is_talking
        rules = _rules()
        assert "CRIU" not in rules
        assert str(far.port) not in rules
        sent, received = near.finish()
        assert far.counts() == (received, sent)
