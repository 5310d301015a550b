"""Classes whose methods are generated at their first use, beside the standard library's own."""

import copy
import dataclasses
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, asdict, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from imgsvc.lazy_dataclass import dataclass

ROOT = Path(__file__).parents[2]


class Everything:
    """All that the service's own classes use."""

    KIND: ClassVar[str] = "not a field"
    name: str
    size: int = 3
    tags: list[str] = field(default_factory=list)
    seconds: float = field(default=0.0, compare=False)
    secret: str = field(default="s", repr=False)
    digest: str = field(init=False)
    fixed: int = field(default=7, init=False)
    made: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.name.upper())


class Hashed:
    """Fields that can be hashed, one of them without a say in it."""

    name: str
    size: int = 3
    seconds: float = field(default=0.0, compare=False)


class Shown:
    """A class with methods of its own."""

    name: str

    def __repr__(self) -> str:
        return "shown"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shown)

    def __hash__(self) -> int:
        return 1


def outcome(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except (TypeError, AttributeError) as error:
        return type(error), re.sub(r"^\S+__init__", "__init__", str(error))


def observed(plain: type, decorate: Callable[..., Any], options: Mapping[str, bool]) -> list[Any]:
    copied = type(plain.__name__, (), {k: v for k, v in vars(plain).items() if k not in ("__dict__", "__weakref__")})
    for one in vars(copied).values():
        if isinstance(one, dataclasses.Field):
            one.name = one.type = None  # type: ignore[assignment] # of the class decorated before
    cls: Any = decorate(**options)(copied)
    a, b, c, other = cls("a"), cls("a"), cls(name="a"), cls("b")
    later = cls("a", seconds=2.0) if "seconds" in cls.__annotations__ else a
    return [
        [repr(one) for one in (a, b, c, other)],
        [a == b, a == c, a == other, a == later, a == "a", a != b],
        outcome(lambda: hash(a) == hash(b)),
        outcome(lambda: hash(a) == hash(other)),
        outcome(lambda: asdict(a)),
        outcome(lambda: asdict(replace(a, name="c"))),
        outcome(lambda: copy.copy(a) == a),
        outcome(lambda: setattr(a, "name", "z")),
        outcome(lambda: delattr(b, "name")),
        outcome(lambda: cls("x", "y", "z", "more", "more", "more")),
        outcome(lambda: cls(unknown=1)),
        outcome(cls),
        cls.__match_args__,
        [one.name for one in dataclasses.fields(cls)],
        getattr(cls, "__slots__", None),
        cls.__hash__ is None,
        outcome(lambda: a.tags is b.tags),
    ]


@pytest.mark.parametrize("options", [{}, {"frozen": True}], ids=["", "frozen"])
@pytest.mark.parametrize("slots", [False, True], ids=["dictionary", "slots"])
@pytest.mark.parametrize("eq", [False, True], ids=["identity", "equal"])
@pytest.mark.parametrize("plain", [Everything, Hashed, Shown])
def test_as_the_standard_library(plain: type, eq: bool, slots: bool, options: dict[str, bool]) -> None:
    wanted = {**options, "slots": slots, "eq": eq}
    assert observed(plain, dataclass, wanted) == observed(plain, dataclasses.dataclass, wanted)


@dataclass(frozen=True, slots=True)
class Point:
    """A value that is pickled."""

    x: int
    y: int = 0

    def moved(self) -> "Point":
        return replace(self, x=self.x + 1)


def test_a_value_is_pickled_matched_and_frozen() -> None:
    point = pickle.loads(pickle.dumps(Point(1, 2))).moved()
    match point:
        case Point(x, y):
            assert (x, y) == (2, 2)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 3
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x


def test_a_method_is_generated_once() -> None:
    @dataclass(frozen=True, slots=True)
    class Lone:
        name: str

    before = vars(Lone)["__init__"], vars(Lone)["__eq__"]
    assert Lone("a").name == "a"
    after = vars(Lone)["__init__"], vars(Lone)["__eq__"]
    assert after[0] is not before[0]
    assert after[1] is before[1]  # nothing was compared
    assert Lone("b").name == "b"
    assert vars(Lone)["__init__"] is after[0]


def test_every_class_of_the_service_is_one() -> None:
    """The client stands alone: it may be copied without the rest."""
    library = re.compile(r"^from dataclasses import .*\bdataclass\b", re.MULTILINE)
    found = {
        file.parent.name
        for file in (ROOT / "imgsvc").rglob("*.py")
        if library.search(file.read_text(encoding="utf-8")) and file.name != "lazy_dataclass.py"
    }
    assert found == {"client"}
