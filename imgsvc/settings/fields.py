"""Declares settings, and the types of values that several sections share.

A setting is one line of a section: its type with the check, its default, its description and its unit. The loader,
doctor, config.toml and the reference page all read them from there.
"""

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any, Self, TypedDict, TypeVar, Unpack

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, SecretStr
from pydantic import GetJsonSchemaHandler as JsonHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ..lazy_dataclass import dataclass

MEGABYTE = 1 << 20
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key of the hash's size or larger
MISMATCH = "string_pattern_mismatch"  # as pydantic calls it
SHOWN_CHARACTERS = 60  # of a value that an error shows
WEEK_SECONDS = 604_800  # the longest lifetime of a presigned URL of S3

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)


class SettingsError(Exception):
    """A setting that can't be used. The message is one line: the setting, the value, what is allowed."""


class Section(BaseModel):
    """The settings below one heading of config.toml. A section's docstring is its description there."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", allow_inf_nan=False)


def unchecked(section: type[S]) -> S:
    """A section with its defaults, which need no check: its validator, which a start does not need, is not built."""
    return section.model_construct()


class Bounds(TypedDict, total=False):
    ge: float
    gt: float
    le: float
    min_length: int
    pattern: str


def setting(
    default: T,
    words: str,
    *,
    unit: str = "",
    env: str = "",
    may_hold_password: bool = False,
    holds_secrets: bool = False,
    **bounds: Unpack[Bounds],
) -> T:
    """Declare a setting. `words` are sentences for users, without the bounds, which are added from the check.

    `unit` belongs to every number that is a quantity. `env` is the environment name where IMGSVC_{SECTION}_{FIELD} is
    not it: names that were in use before this program. `may_hold_password` hides a URL with a password in errors,
    `holds_secrets` the whole value.
    """
    marks: dict[str, Any] = {
        "unit": unit,
        "env": env,
        "may_hold_password": may_hold_password,
        "holds_secrets": holds_secrets,
    }
    extra = {name: value for name, value in marks.items() if value}
    declared: T = Field(default, description=words, json_schema_extra=extra, **bounds)
    return declared


def retired(default: T) -> T:
    """Declare a setting that is still understood, but has no effect any more and is not documented."""
    declared: T = Field(default, exclude=True, json_schema_extra={"retired": True})
    return declared


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """A setting as declared."""

    section: str
    field: str
    environment: str
    unit: str  # "" where the value is no quantity
    words: str
    secret: bool
    may_hold_password: bool
    holds_secrets: bool  # somewhere inside
    retired: bool

    @classmethod
    def of(cls, section: str, field: str, info: FieldInfo) -> Self:
        marks = info.json_schema_extra
        assert isinstance(marks, dict)
        may_hold_password = bool(marks.get("may_hold_password"))
        return cls(
            section,
            field,
            str(marks.get("env") or f"IMGSVC_{section}_{field}".upper()),
            str(marks.get("unit", "")),
            info.description or "",
            info.annotation is SecretStr and not may_hold_password,
            may_hold_password,
            bool(marks.get("holds_secrets")),
            bool(marks.get("retired")),
        )


def declared(settings: type[BaseModel]) -> Iterator[SettingInfo]:
    """Every setting of a model whose fields are sections, in their order."""
    for section, info in settings.model_fields.items():
        kind = info.annotation
        assert isinstance(kind, type) and issubclass(kind, Section)
        for field, inner in kind.model_fields.items():
            yield SettingInfo.of(section, field, inner)


@dataclass(frozen=True, slots=True)
class Matching:
    """Text that a pattern matches as a whole, in an Annotated type. The API document has the pattern; a refusal says in
    `words` what the text must be, and what it is.
    """

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: JsonHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
            raise PydanticCustomError(MISMATCH, "{reason}", {"reason": f"must be {self.words}, not {shown!r}"})
        return text


def _strong(value: SecretStr) -> SecretStr:
    size = len(value.get_secret_value().encode())
    if 0 < size < MIN_SECRET_BYTES:
        raise ValueError(f"has {size} bytes; at least {MIN_SECRET_BYTES} are needed")
    return value


def _absolute_url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
        raise ValueError("must be empty or an absolute http(s) URL without a query")
    return value.rstrip("/")


def _list_from_text(value: object) -> object:
    """Parse a JSON list, or `a,b`. Values that are not text are left to the next check."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _table_from_text(value: object) -> object:
    """Parse a JSON object, or `name=1,other=2` (`:` works too)."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return _json(value)
    pairs = [re.split(r"[=:]", part, maxsplit=1) for part in value.split(",") if part.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("must be a JSON object or a list like thumbnail=150,medium=600")
    return {name.strip(): number.strip() for name, number in pairs}


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None


def _integral(value: object) -> object:
    """Accept whole floats: in JSON 1e6 is the integer 1000000 (RFC 8259 section 6). NaN and infinity stay invalid."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


INTEGRAL = BeforeValidator(_integral)  # for integers in JSON from other programs
STRONG = AfterValidator(_strong)
LIST = BeforeValidator(_list_from_text)
TABLE = BeforeValidator(_table_from_text)
Seconds = Annotated[float, Field(gt=0, le=86_400, json_schema_extra={"unit": "seconds"})]
AbsoluteUrl = Annotated[str, AfterValidator(_absolute_url)]  # or empty; kept without a slash at its end
Texts = Annotated[tuple[str, ...], LIST]
