"""The step of the smoke test that uploads an animation: it has to go on moving, without what its file says besides."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageSequence

from .checks import MOVING_CHUNKS, chunks, near
from .http_client import Instance, Unexpected, outcome
from .photo import BOTTOM, LEFT, SIGNS, TOP
from .upload import API, completed, send

SIDES = (64, 48)  # pixels
COLOURS = (LEFT, TOP, BOTTOM)  # of its frames
MILLISECONDS = 120  # of each frame
GIF = "image/gif"


def animation() -> bytes:
    """A GIF of three frames that is shown for ever, with a comment."""
    first, *others = (Image.new("RGB", SIDES, colour).quantize(2) for colour in COLOURS)
    buffer = io.BytesIO()
    more = {"append_images": others, "duration": MILLISECONDS, "loop": 0, "comment": SIGNS[2]}
    first.save(buffer, "GIF", save_all=True, **more)
    return buffer.getvalue()


def check_animation(instance: Instance, bucket: str, variant: str) -> str:
    """Upload it, look at the variant, which moves by the settings, and delete it. Returns a description.

    Raises Unexpected.
    """
    data = animation()
    receipt = send(instance, bucket, ("smoke.gif", data, GIF), instance.authorization, 202).json()
    with _deleted(instance, receipt["image_id"]):
        completed(instance, receipt["job_id"])
        urls = instance.call("GET", f"{API}/jobs/{receipt['job_id']}/result").json()["urls"]
        answer = instance.ask("GET", instance.absolute(urls[variant]), {})
        if answer.status_code != 200:
            raise Unexpected(f"{variant} answers {outcome(answer)}")
        _check(answer.content)
    return f"{variant} moves: {len(COLOURS)} frames, {len(answer.content):,} bytes"


@contextmanager
def _deleted(instance: Instance, image_id: str) -> Iterator[None]:
    """Delete the image, whatever happens."""
    try:
        yield
    finally:
        instance.call("DELETE", f"{API}/{image_id}")


def _check(data: bytes) -> None:
    for kind, _ in chunks(data):
        if kind not in MOVING_CHUNKS:
            raise Unexpected(f"its variant contains a {kind.decode(errors='replace').strip()} chunk")
    if SIGNS[2] in data:
        raise Unexpected(f"its variant still contains {SIGNS[2].decode()}")
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            frames = [
                (one.convert("RGB").getpixel((5, 5)), one.info["duration"]) for one in ImageSequence.Iterator(image)
            ]
            plays = image.info.get("loop")
    except (OSError, SyntaxError, ValueError, KeyError) as error:
        raise Unexpected(f"its variant is no animated WebP: {error}") from None
    if len(frames) != len(COLOURS):
        raise Unexpected(f"its variant has {len(frames)} frames and not {len(COLOURS)}")
    if plays != 0 or any(shown != MILLISECONDS for _, shown in frames):
        raise Unexpected(f"its variant has times and loops of its own: {[shown for _, shown in frames]} ms, {plays}")
    for (colour, _), expected in zip(frames, COLOURS, strict=True):
        if not isinstance(colour, tuple) or not near(colour, expected):
            raise Unexpected(f"a frame of its variant has the colour {colour} and not {expected}")
