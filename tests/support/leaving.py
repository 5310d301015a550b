"""What a decoder that a picture has taken over may leave as variants and as the source that is kept."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import NoReturn

from PIL import Image

from fixtures import coded, containers, make
from imgsvc.imaging.animated_webp import AnimatedWebp
from imgsvc.imaging.encode import Encoded, encode
from imgsvc.imaging.geometry import output_size
from imgsvc.imaging.pipeline import CleanSource, Rendering
from imgsvc.imaging.recipe import SOURCE, Recipe, Variant
from tests.support.taken_process import SIZE, Surroundings, answers, outputs, task

HUGE = (16_383, 16_383)
LARGE = (1_000, 700)  # far more than was sent
Painter = Callable[[Variant, tuple[int, int]], bytes]


def sound(variant: Variant, size: tuple[int, int], frames: int = 2) -> bytes:
    """A variant as the service makes it, of another picture than was sent."""
    output, image = io.BytesIO(), make.quadrants(*size)
    if not variant.animated:
        encode(image, variant, output)
        return output.getvalue()
    film = AnimatedWebp(variant, output, 0, 1 << 20)
    for number in range(frames):
        film.add(image.rotate(180 * number), 100)
    film.finish()
    return output.getvalue()


def leaves(
    form: str = "", painted: Painter = sound, *, said: tuple[int, int] | None = None, source: bytes = b""
) -> Callable[[Surroundings], NoReturn]:
    """Write a variant to each output, and to those of this format what `painted` makes; answer that all went well.

    `said`: the size that is claimed of those. `source`: what is left as the source without metadata.
    """

    def leave(_: Surroundings) -> NoReturn:
        given = task()
        recipe = Recipe.from_json(given["recipe"])
        moving = {variant.name for variant in recipe.moving}
        named, variants, kept = {variant.name: variant for variant in recipe.variants}, [], None
        for name, output in zip(given["outputs"], outputs(), strict=True):
            if name == SOURCE:
                kept = CleanSource(*_left(output, source)) if source else None
                continue
            variant = replace(named[name], animated=name in moving)
            size, wanted = output_size(variant, SIZE), form == kind_of(variant)
            length, digest = _left(output, (painted if wanted else sound)(variant, size))
            width, height = said if said and wanted else size
            frames = recipe.frames if variant.animated else 1
            variants.append(asdict(Encoded(name, width, height, length, digest, variant.format, frames)))
        rendering = asdict(Rendering(*SIZE, "#000000", recipe.frames, (), source=kept)) | {"variants": variants}
        answer = {"outcome": "rendered", "rendering": rendering, "error": None, "seconds": 0.0, "log": None}
        os.write(answers(), json.dumps({"task": given["id"], **answer}).encode())
        os._exit(0)

    return leave


def kind_of(variant: Variant) -> str:
    """Its format, or that it moves."""
    return "animation" if variant.animated else variant.format


def _left(output: int, data: bytes) -> tuple[int, str]:
    os.ftruncate(output, 0)
    os.pwrite(output, data, 0)
    return len(data), hashlib.sha256(data).hexdigest()


@cache
def of_one_colour(form: str) -> bytes:
    image = Image.new("RGB", LARGE, make.RED)
    return jpeg(image) if form == "jpeg" else avif(image)


def prepare() -> None:
    """In the warm process: libaom takes more memory than a small picture is granted."""
    for form in ("jpeg", "avif"):
        of_one_colour(form)


def jpeg(image: Image.Image, **more: object) -> bytes:
    """As the service encodes it, but for what is given."""
    return make.encoded(image, "JPEG", progressive=True, subsampling=0, **more)


def avif(image: Image.Image, **more: object) -> bytes:
    return coded.avif(image, codec="aom", autotiling=False, **more)


def with_chunk(data: bytes) -> bytes:
    """An animated WebP with a chunk of metadata behind its frames."""
    return containers.webp_file([*containers.webp_parts(data), (b"EXIF", make.exif())])


def leave_link(there: Surroundings) -> None:
    """Put a link to a secret in the place of an output: /proc shows its path to a process that may look."""
    path = Path(f"/proc/self/fd/{there.output}").readlink()
    path.unlink()
    path.symlink_to(there.data / "jwt_secret")
    leaves()(there)


LYING: dict[str, Callable[[Surroundings], object]] = {
    "leave a huge picture": leaves("webp", lambda *_: make.one_colour_webp(*HUGE)),
    "leave a huge picture and say so": leaves("webp", lambda *_: make.one_colour_webp(*HUGE), said=HUGE),
    "leave a picture with a place": leaves(
        "webp", lambda _, size: make.encoded(make.quadrants(*size), "WEBP", exif=make.exif())
    ),
    "leave a link": leave_link,
    "leave a page": leaves("webp", lambda *_: b"<script>alert(1)</script>"),
    "leave a huge JPEG": leaves("jpeg", lambda *_: of_one_colour("jpeg")),
    "leave a huge JPEG and say so": leaves("jpeg", lambda *_: of_one_colour("jpeg"), said=LARGE),
    "leave a JPEG with a place": leaves("jpeg", lambda _, size: jpeg(make.quadrants(*size), exif=make.exif())),
    "leave a JPEG with a comment": leaves("jpeg", lambda _, size: jpeg(make.quadrants(*size), comment=b"SECRET")),
    "leave a JPEG and more": leaves("jpeg", lambda *of: sound(*of) + b"more"),
    "leave a huge AVIF": leaves("avif", lambda *_: of_one_colour("avif")),
    "leave a huge AVIF and say so": leaves("avif", lambda *_: of_one_colour("avif"), said=LARGE),
    "leave an AVIF with a place": leaves("avif", lambda _, size: avif(make.quadrants(*size), exif=make.exif())),
    "leave an AVIF with XMP": leaves("avif", lambda _, size: avif(make.quadrants(*size), xmp=b"<x:xmpmeta/>")),
    "leave a moving AVIF": leaves(
        "avif",
        lambda _, size: avif(make.quadrants(*size), save_all=True, append_images=[make.photo(*size)], duration=40),
    ),
    "leave a WebP as an AVIF": leaves("avif", lambda _, size: make.encoded(make.quadrants(*size), "WEBP")),
    "leave a source with a place": leaves(source=make.encoded(make.quadrants(*SIZE), "JPEG", exif=make.exif())),
    "leave a source of another size": leaves(source=make.jpeg(8, 8)),
}
# Of a picture that moves.
LYING_IN_MOTION: dict[str, Callable[[Surroundings], object]] = {
    "leave an animation with a place": leaves("animation", lambda *of: with_chunk(sound(*of))),
    "leave an animation of more frames": leaves("animation", lambda variant, size: sound(variant, size, 3)),
    "leave a huge animation": leaves("animation", lambda variant, _: sound(variant, LARGE)),
}
SPOILING: dict[str, Callable[[Surroundings], object]] = {
    "leave another picture": leaves(),
    "leave another source": leaves(source=make.encoded(make.quadrants(*SIZE), "JPEG")),
}
SPOILING_IN_MOTION: dict[str, Callable[[Surroundings], object]] = {"leave another animation": leaves()}
