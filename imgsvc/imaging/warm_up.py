"""One use of each codec, so that processes forked afterwards find imports, tables and memory ready."""

import io
from contextlib import suppress

from PIL import Image, ImageCms

from . import optional_codecs
from .coded_samples import AVIF, HEIF
from .encode import encode
from .pipeline import render
from .recipe import Recipe, Variant

SIZE = (96, 64)  # pixels
RECIPE = Recipe((Variant("whole", 96, 85, 4), Variant("small", 16, 85, 4)), max_pixels=96 * 64, max_frames=1)
CODED_SOURCES = {optional_codecs.HEIC: HEIF, optional_codecs.AVIF: AVIF}
SOURCES = {"JPEG": ("RGB", {}), "PNG": ("RGBA", {}), "WEBP": ("RGB", {"lossless": True}), "GIF": ("P", {})}
WITH_PROFILE = "JPEG"  # a conversion takes 2 ms, half of a small picture's time, and is the same for the others


def use_codecs() -> None:
    """Make, decode and encode a small picture of each format, in memory. A render makes the preview as well."""
    noise = Image.effect_noise(SIZE, 64)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for form, (mode, options) in SOURCES.items():
        source = io.BytesIO()
        described = {"icc_profile": profile} if form == WITH_PROFILE else {}
        noise.convert(mode).save(source, form, **described, **options)
        outputs = {variant.name: io.BytesIO() for variant in RECIPE.variants}
        render(source, f"image/{form.lower()}", RECIPE, outputs)


def use_optional_codecs() -> dict[str, str]:
    """Load the decoders of HEIC and AVIF that are installed, and use each once. Returns their versions by MIME type."""
    found = optional_codecs.load()
    for mime in found:
        outputs = {variant.name: io.BytesIO() for variant in RECIPE.variants}
        render(io.BytesIO(CODED_SOURCES[mime]), mime, RECIPE, outputs)
    use_encoder()
    return found


def use_encoder() -> None:
    """Load the encoder of AVIF, if it is installed, and use it once, with the least effort."""
    with suppress(ImportError):
        encode(Image.new("RGB", SIZE), Variant("one", 96, 50, 0, format="avif"), io.BytesIO())
