"""Bucket and metadata of an upload, from a form, the query, or a header."""

import json
import math
import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from ...storage.keys import THROUGH_A_FILE
from .moments import AT_FIRST_USE, Lifetime, Moment
from .prefer import Prefer
from .validation import Headers, Query, invalid

METADATA_BYTES = 16 * 1024
MAX_NESTING = 64  # levels of metadata; responses support 255
BUCKET_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAX_BUCKET_SEGMENTS = 5
MAX_KEY = 255  # characters of an Idempotency-Key
MORE_SEGMENTS = f"(/{BUCKET_SEGMENT.pattern}){{0,{MAX_BUCKET_SEGMENTS - 1}}}"
T = TypeVar("T")


def _bucket(text: str) -> str:
    segments = text.split("/")
    valid = all(BUCKET_SEGMENT.fullmatch(segment) for segment in segments)
    if not valid or len(segments) > MAX_BUCKET_SEGMENTS or ".." in text:
        message = (
            f"must be 1 to {MAX_BUCKET_SEGMENTS} segments joined by '/', each of 1 to 63 characters out of "
            "letters, digits, '.', '_' and '-', beginning with a letter or digit, without '..'"
        )
        raise _wrong("bucket_invalid", message)
    if THROUGH_A_FILE.search(text):
        raise _wrong(
            "bucket_invalid", "must not lead through the file of an image: …/processed/VARIANT/ID_VARIANT.webp"
        )
    return text


def _metadata(text: object) -> object:
    """A JSON object of at most 16 KiB."""
    if not isinstance(text, str):
        return text
    if (size := len(text.encode("utf-8", "surrogatepass"))) > METADATA_BYTES:
        raise _wrong("metadata_too_large", f"must be at most {METADATA_BYTES} bytes, and has {size}")
    try:
        value = json.loads(text or "{}", parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise _wrong("json_invalid", "must be valid JSON") from None
    if not isinstance(value, dict):
        raise _wrong("dict_type", "must be a JSON object")
    if _deeper_than(MAX_NESTING, value):
        raise _wrong("metadata_too_deep", f"must not be nested deeper than {MAX_NESTING} levels")
    try:
        json.dumps(value).encode("utf-8")
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        raise _wrong("json_invalid", "must not contain a lone surrogate") from None
    return value


def _wrong(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, message)


def _deeper_than(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(levels - 1, one) for one in inner)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is out of the range of a double")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _utf8(text: object) -> object:
    """Header values come as latin-1."""
    try:
        return text.encode("latin-1").decode("utf-8") if isinstance(text, str) else text
    except UnicodeDecodeError:
        raise _wrong("string_unicode", "must be UTF-8") from None


Bucket = Annotated[
    str,
    AfterValidator(_bucket),
    Field(
        description=f"Where the image is stored: 1 to {MAX_BUCKET_SEGMENTS} segments joined by `/`.",
        json_schema_extra={"pattern": f"^{BUCKET_SEGMENT.pattern}{MORE_SEGMENTS}$", "not": {"pattern": r"\.\."}},
    ),
]
ABOUT_METADATA = f"A JSON object of at most {METADATA_BYTES // 1024} KiB that comes back with the result."
Metadata = Annotated[dict[str, Any], BeforeValidator(_metadata)]
# In a JSON body: an object, with the checks of the text.
MetadataObject = Annotated[
    dict[str, Any], BeforeValidator(lambda value: _metadata(json.dumps(value)) if isinstance(value, dict) else value)
]
BUCKET: TypeAdapter[str] = TypeAdapter(Bucket, config=AT_FIRST_USE)
METADATA: TypeAdapter[dict[str, Any]] = TypeAdapter(Metadata, config=AT_FIRST_USE)


def field_value(kind: TypeAdapter[T], text: str, name: str) -> T:
    """Parse a field of the form. Raises Problem (422)."""
    try:
        return kind.validate_python(text)
    except ValidationError as error:
        raise invalid(error, "body", name) from None


EXPIRES_AT = "When the image expires; instead of `expires_in`."
LEFT_EMPTY = Field(examples=[""])  # the same as absent: a page that is made of the document invents no value


def _never_null(schema: dict[str, Any]) -> None:
    """A part of a form is absent or present: a page that is made of the document would else send the word `null`."""
    for name, part in schema["properties"].items():
        (kind,) = [one for one in part.pop("anyOf", [{}]) if one != {"type": "null"}]
        schema["properties"][name] = {**kind, **{key: value for key, value in part.items() if value is not None}}


class UploadForm(BaseModel):
    """The parts, in any order. This documents the form; `multipart.py` reads it as it streams, with the same checks."""

    model_config = ConfigDict(defer_build=True, json_schema_extra=_never_null)

    file: Annotated[bytes, Field(description="The photo.")]
    bucket: Annotated[Bucket, Field(examples=["holiday"])]
    metadata: Annotated[Metadata, Field(description=ABOUT_METADATA, examples=[{"title": "A day at the sea"}])] = {}
    expires_in: Annotated[Lifetime | None, LEFT_EMPTY] = None
    expires_at: Annotated[Moment | None, Field(description=EXPIRES_AT), LEFT_EMPTY] = None


class TicketForm(UploadForm):
    """The same for a ticket, which sets the bucket. Metadata set by the ticket takes precedence over the form's."""

    bucket: Annotated[Bucket | None, Field(examples=["holiday"])] = None  # type: ignore[assignment]


def checked_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata that were put together from two sources. Raises Problem (422)."""
    return field_value(METADATA, json.dumps(metadata), "metadata")


class UploadQuery(Query):
    bucket: Annotated[Bucket | None, Field(description="The bucket, when the body is the photo itself.")] = None
    expires_in: Lifetime | None = None
    expires_at: Annotated[Moment | None, Field(description=EXPIRES_AT)] = None


class UploadHeaders(Headers):
    idempotency_key: Annotated[
        str | None,
        Field(
            alias="Idempotency-Key",
            min_length=1,
            max_length=MAX_KEY,
            description="A repeated upload with the same key gets the first receipt again, for 24 hours.",
        ),
    ] = None
    metadata: Annotated[
        Metadata,
        BeforeValidator(_utf8),
        Field(
            alias="X-Metadata",
            description=f"{ABOUT_METADATA} For a body that is the photo itself.",
        ),
    ] = {}  # noqa: RUF012, pydantic copies it
    prefer: Prefer = None
