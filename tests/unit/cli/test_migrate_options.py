"""``torpor migrate``: what excludes each other is told before anybody is asked."""

import pytest

from torpor.base.errors import UsageError
from torpor.cli.commands import migrate
from torpor.cli.torpor import parser_for


@pytest.mark.parametrize("asked", [["--post-copy", "now"], ["--on-timeout", "post-copy"]])
@pytest.mark.parametrize("other", [["--keep-source"], ["--via", "ssh"]])
def test_memory_that_comes_later_needs_a_source_and_a_way(asked: list[str], other: list[str]) -> None:
    args = parser_for(["migrate"]).parse_args(["migrate", *asked, *other, "job:x", "host"])
    with pytest.raises(UsageError, match="exclude each other") as caught:
        migrate.main(args)
    assert " ".join(asked) in caught.value.describe() and other[0] in caught.value.describe()
