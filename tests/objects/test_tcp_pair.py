import pytest

from harness.flavours import workload_test

pytestmark = pytest.mark.usefixtures("own_network")

test_tcp_pair = workload_test("tcp_pair", dump_options=["--tcp-established"], restore_options=["--tcp-established"])
