"""docs/exit-codes.md says what the error classes say."""

import re
from pathlib import Path

from torpor.base import errors
from torpor.base.errors import TorporError
from torpor.images.errors import ImageError

TEXT = (Path(__file__).parents[2] / "docs/exit-codes.md").read_text(encoding="utf-8")


def test_every_error_is_documented_with_its_code() -> None:
    documented = {name: int(code) for name, code in re.findall(r"^\| `(\w+)` \| (\d+) \|", TEXT, re.M)}
    classes: list[type[TorporError]] = [ImageError]
    classes += [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, TorporError)]
    assert documented == {each.__name__: each.exit_code for each in classes}
