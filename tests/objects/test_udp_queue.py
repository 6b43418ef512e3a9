import pytest

from harness.flavours import workload_test

pytestmark = pytest.mark.usefixtures("own_network")

test_udp_queue = workload_test("udp_queue")
