"""The metadata of an image in responses: dictionaries, since the client's own keys are among the service's."""

from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from ...imaging.recipe import is_further
from ...jobs.answer_model import THUMBHASH
from ...jobs.table.model import Job


class Size(TypedDict):
    """In pixels."""

    width: int
    height: int


class Dimensions(Size):
    """One variant: sides in pixels, width / height to three places, and the file's size in bytes.

    `frames` is there for an animation only.
    """

    aspect_ratio: float
    format: str
    size_bytes: int
    frames: NotRequired[int]


class Placeholders(TypedDict):
    dominant_color: str | None
    thumbhash: str | None


class Brief(Placeholders):
    dimensions: Dimensions


@with_config(ConfigDict(extra="allow"))
class PublicMetadata(TypedDict):
    """The service's measurements, next to the client's own keys. `content_length` is that of the upload, in bytes;
    `thumbhash` is a ThumbHash in base64, null for images of older versions.
    """

    detected_mime_type: str
    content_length: int
    dominant_color: str
    thumbhash: str | None
    original_dimensions: Size
    animated: NotRequired[bool]
    frames: NotRequired[int]
    variants: dict[str, Dimensions]


@with_config(ConfigDict(extra="allow"))
class Metadata(PublicMetadata):
    """The last three are present only for the uploader and the organisation's admins."""

    uploader_id: NotRequired[str | None]
    org_id: NotRequired[str | None]
    original_filename: NotRequired[str | None]


ClientMetadata = Annotated[
    dict[str, Any],
    Field(description="The client's own object, whole: `metadata` lacks its keys that are also names of this service."),
]

DIMENSIONS: dict[str, Any] = {
    "width": 600,
    "height": 400,
    "aspect_ratio": 1.5,
    "format": "webp",
    "size_bytes": 45_120,
}
CLIENT_EXAMPLE: dict[str, Any] = {"title": "A day at the sea"}
EXAMPLE: dict[str, Any] = {
    **CLIENT_EXAMPLE,
    "detected_mime_type": "image/jpeg",
    "content_length": 2_411_724,
    "dominant_color": "#4a7fa5",
    "thumbhash": THUMBHASH,
    "original_dimensions": {"width": 3000, "height": 2000},
    "variants": {"medium": DIMENSIONS},
}
# Names of the service's own that only some readers see, or only some images have.
SERVER_KEYS = ("uploader_id", "org_id", "original_filename", "animated", "frames")


def public_metadata(job: Job) -> dict[str, Any]:
    """The client's keys, then the server's own, which win; what is personal is never taken from the client's.

    The dictionary is kept with the row: it must not be changed.
    """
    if "public_metadata" not in job.derived:
        job.derived["public_metadata"] = _public_metadata(job)
    found: dict[str, Any] = job.derived["public_metadata"]
    return found


def _public_metadata(job: Job) -> dict[str, Any]:
    client = {name: value for name, value in job.client_metadata.items() if name not in SERVER_KEYS}
    measured = job.measured
    return {
        **client,
        "detected_mime_type": job.mime_type,
        "content_length": job.content_length,
        "dominant_color": measured["dominant_color"],
        "thumbhash": measured.get("thumbhash"),
        "original_dimensions": measured["original_dimensions"],
        **({"animated": True, "frames": measured["frames"]} if measured.get("animated") else {}),
        "variants": {name: dimensions(measured, name) for name in job.paths if not is_further(name)},
    }


def placeholders(job: Job) -> Placeholders:
    """What a page shows first: null until it is known."""
    return {"dominant_color": job.measured.get("dominant_color"), "thumbhash": job.measured.get("thumbhash")}


def dimensions(measured: dict[str, Any], variant: str) -> Dimensions:
    made = measured["variants"][variant]
    found: Dimensions = {
        "width": made["width"],
        "height": made["height"],
        "aspect_ratio": round(made["width"] / made["height"], 3),
        "format": made["format"],
        "size_bytes": made["size_bytes"],
    }
    if "frames" in made:
        found["frames"] = made["frames"]
    return found
