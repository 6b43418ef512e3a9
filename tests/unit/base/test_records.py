"""Records behave as the standard data classes do."""

import dataclasses

import pytest

from torpor.base import records


@records.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    tags: list[str] = records.field(default_factory=list)

    @property
    def total(self) -> int:
        return self.x + self.y


@records.dataclass(slots=True)
class Box:
    width: int
    name: str = "box"


@records.dataclass(frozen=True, slots=True)
class Deep(Point):
    z: int = 3


def test_defaults_positions_and_names() -> None:
    point = Point(1)
    assert (point.x, point.y, point.tags, point.total) == (1, 2, [], 3)
    assert Point(1, y=5).y == 5
    assert Point(1).tags is not Point(1).tags
    assert repr(Point(1)) == "Point(x=1, y=2, tags=[])"


def test_frozen_ones_cannot_be_changed_and_others_can() -> None:
    with pytest.raises(AttributeError):
        Point(1).x = 2  # type: ignore[misc]
    box = Box(1)
    box.width = 2
    assert box == Box(2) != Box(3)
    with pytest.raises(AttributeError):
        box.depth = 1  # type: ignore[attr-defined]


def test_hash_inheritance_replace_and_fields() -> None:
    assert Deep(1).z == 3
    assert records.replace(Deep(1), y=7) == Deep(1, 7)
    assert [item.name for item in records.fields(Deep)] == ["x", "y", "tags", "z"]
    with pytest.raises(TypeError):
        hash(Box(1))


def test_wrong_arguments_are_type_errors() -> None:
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Box(1, depth=2)  # type: ignore[call-arg]
    assert not dataclasses.is_dataclass(Point)
