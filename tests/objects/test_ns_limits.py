"""What user and pid namespaces forbid, by sysctls of their own."""

import pytest

from harness.flavours import Flavour, carry_through, start

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("flavour", "args"), [(Flavour.FRESH, ()), (Flavour.USER, ("user",))])
def test_what_its_namespaces_forbid_is_forbidden_afterwards(flavour: Flavour, args: "tuple[str, ...]") -> None:
    with start(flavour, "ns_limits", args) as running:
        running.wait_ready()
        carry_through(flavour, running)
        running.expect_pass()
