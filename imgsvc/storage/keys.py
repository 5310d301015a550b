"""The names of stored files, {bucket}/{key}: building and parsing them, and recognizing foreign ones."""

import re
from typing import Self

from ..lazy_dataclass import dataclass

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
IS_UUID = re.compile(UUID, re.IGNORECASE)
PROCESSED = "processed/"  # what the key of a variant begins with
SOURCES = "sources/"  # what the key of a kept source begins with
FORMATS = ("webp", "jpeg", "avif")  # the endings of keys
SOURCE_FORMATS = ("jpeg", "png", "webp", "heic", "avif", "gif")
_ENDING = rf"(?:_r[1-9][0-9]{{0,8}})?\.(?:{'|'.join(FORMATS)})"
# A bucket whose path leads through an image's file: one of the two could not be stored. Any other bucket may contain
# these words. Existing images in such a bucket stay reachable.
_SOURCE = rf"{UUID}\.(?:{'|'.join(SOURCE_FORMATS)})"
THROUGH_A_FILE = re.compile(rf"/processed/([^/]+)/{UUID}_\1{_ENDING}(/|$)|(/|^)sources/{_SOURCE}(/|$)", re.IGNORECASE)
OURS = re.compile(
    rf"(?P<bucket>.+)/(?P<key>processed/(?P<variant>[^/]+)/(?P<partial>\.)?(?P<image>{UUID})_(?P=variant){_ENDING}"
    r"(?(partial)\.partial))"
)

OF_A_RUN = re.compile(rf"(?P<run>(?P<job>{UUID})\.[a-z0-9.]{{1,64}})/[a-z0-9][a-z0-9_-]{{0,31}}")


@dataclass(frozen=True, slots=True)
class IncomingName:
    """The parts of a key in the bucket of what render machines put: `run` is the name of the run's folder."""

    job_id: str
    run: str

    @classmethod
    def of(cls, key: str) -> Self | None:
        """Parse a key; None for anything else. A client's own bucket may have the same name."""
        found = OF_A_RUN.fullmatch(key)
        return cls(found["job"], found["run"]) if found else None


OUR_SOURCE = re.compile(
    rf"(?P<bucket>.+)/(?P<key>sources/(?P<partial>\.)?(?P<image>{UUID})\.(?:{'|'.join(SOURCE_FORMATS)})"
    r"(?(partial)\.partial))"
)


@dataclass(frozen=True, slots=True)
class StoredName:
    """The parts of the name of one of our files; `partial`: an interrupted put left it. A source has no `variant`."""

    bucket: str
    key: str
    variant: str | None
    image_id: str
    partial: bool

    @classmethod
    def of(cls, path: str) -> Self | None:
        """Parse {bucket}/{key}; None if it is not a name of ours."""
        found = OURS.fullmatch(path) or OUR_SOURCE.fullmatch(path)
        if found is None:
            return None
        variant = found.groupdict().get("variant")
        return cls(found["bucket"], found["key"], variant, found["image"], found["partial"] is not None)


def variant_key(variant: str, image_id: str, *, revision: int = 0, ending: str = FORMATS[0]) -> str:
    """The key of a variant. `revision` is 0 for the first bytes; each number is used once in an image's life."""
    revised = f"_r{revision}" if revision else ""
    return f"{PROCESSED}{variant}/{image_id}_{variant}{revised}.{ending}"


def source_key(image_id: str, mime: str) -> str:
    """The key of a kept source of this type."""
    return f"{SOURCES}{image_id}.{mime.removeprefix('image/').removesuffix('-sequence').replace('heif', 'heic')}"


def media_type(key: str) -> str:
    """Of the file under a key, by its ending."""
    ending = key.rpartition(".")[2]
    return f"image/{ending if ending in (*FORMATS, *SOURCE_FORMATS) else FORMATS[0]}"


def split_path(path: str) -> tuple[str, str]:
    """(bucket, key). A bucket may have several segments: the key begins with the last `processed` in the path.

    The key of a file that is none of ours is its last segment.
    """
    if source := OUR_SOURCE.fullmatch(path):
        return source["bucket"], source["key"]
    bucket, found, rest = path.rpartition("/processed/")
    if found:
        return bucket, f"processed/{rest}"
    bucket, _, name = path.rpartition("/")
    return bucket, name
