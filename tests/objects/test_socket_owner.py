import pytest

from harness.flavours import workload_test

pytestmark = pytest.mark.usefixtures("own_network")

test_socket_owner = workload_test(
    "socket_owner", dump_options=("--tcp-established",), restore_options=("--tcp-established",)
)
