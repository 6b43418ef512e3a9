import pytest

from harness.flavours import Flavour, workload_test

pytestmark = pytest.mark.usefixtures("own_network")

test_multicast = workload_test("multicast", flavours=(Flavour.CONTROL, Flavour.HOST, Flavour.HOST_RUNNING))
