import pytest

from harness.flavours import workload_test

pytestmark = pytest.mark.usefixtures("own_network")

test_packet = workload_test("packet")
