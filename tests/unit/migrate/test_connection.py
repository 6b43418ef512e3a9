"""Where a page server is said to be: what is no name of a host is an error of ours."""

import pytest

from torpor.base.errors import TorporError
from torpor.migrate.connection import Listener, Where, connect


@pytest.mark.parametrize("address", ["x" * 64, "a..b", "\ud800"])
def test_what_is_no_name_of_a_host(address: str) -> None:
    with pytest.raises(TorporError, match="can be reached"):
        connect(Where(address, 1))
    with pytest.raises(TorporError, match="cannot listen"):
        Listener(Where(address, 1))
