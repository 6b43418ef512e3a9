import pytest

from harness.flavours import workload_test

pytestmark = pytest.mark.usefixtures("own_network")

test_tcp_listen = workload_test("tcp_listen")
