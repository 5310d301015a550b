"""The names of stored files, {bucket}/{key}: building and parsing them, and recognizing foreign ones."""

import re

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
IS_UUID = re.compile(UUID, re.IGNORECASE)
# A bucket whose path leads through an image's file: one of the two could not be stored. Any other bucket may contain
# these words. Existing images in such a bucket stay reachable.
THROUGH_A_FILE = re.compile(rf"/processed/([^/]+)/{UUID}_\1\.webp(/|$)", re.IGNORECASE)
PROCESSED = "processed/"  # what the key of a variant begins with
OURS = re.compile(
    rf"(?P<bucket>.+)/(?P<key>processed/(?P<variant>[^/]+)/(?P<partial>\.)?(?P<image>{UUID})_(?P=variant)\.webp"
    r"(?(partial)\.partial))"
)


def variant_key(variant: str, image_id: str) -> str:
    return f"{PROCESSED}{variant}/{image_id}_{variant}.webp"


def split_path(path: str) -> tuple[str, str]:
    """(bucket, key). A bucket may have several segments: the key begins with the last `processed` in the path.

    The key of a file that is none of ours is its last segment.
    """
    bucket, found, rest = path.rpartition("/processed/")
    if found:
        return bucket, f"processed/{rest}"
    bucket, _, name = path.rpartition("/")
    return bucket, name
