"""Convert any decoded mode to 8-bit sRGB, keeping alpha."""

import io
from typing import Any

from PIL import Image, ImageChops, ImageCms

MAX_PROFILE = 4 * 1024 * 1024  # bytes; printers' CMYK profiles reach 3 MB
# The pixel modes that a profile can describe, by the profile's ICC colour space.
PROFILE_MODES = {"RGB ": ("RGB", "RGBA"), "GRAY": ("L", "LA"), "CMYK": ("CMYK",)}


def as_samples(image: Image.Image, bits: int = 8) -> Image.Image:
    """Convert to L, LA, RGB, RGBA or CMYK: 8-bit samples that can be resampled and that a profile can describe.

    A palette or a colour key becomes RGB or RGBA, 1-bit becomes grey, 16-bit grey keeps its high byte.
    """
    if image.mode.startswith("I"):
        return _grey_from_16_bit(image)
    if image.mode == "1":
        image = image.convert("L")
    if "transparency" in image.info and image.mode in ("L", "P", "RGB"):
        if image.mode != "P":  # in mode P the key is a palette index
            image.info["transparency"] = _key_in_8_bits(image.info["transparency"], bits)
        return image.convert("RGBA")
    if image.mode == "P":
        return image.convert("RGB")
    return image


def to_srgb(image: Image.Image, profile: bytes | None, *, in_place: bool = False) -> Image.Image:
    """Convert to sRGB, as RGB or RGBA. A profile that is broken, oversized or for another colour space is ignored.

    What is sRGB already is returned itself. `in_place`: the image's own pixels may be converted.
    """
    known = profile if profile and len(profile) <= MAX_PROFILE else None
    converted = _by_profile(image, known, in_place=in_place) if known else None
    return converted or _as_mode(image, "RGBA" if has_alpha(image) else "RGB")


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image itself where it has the mode: Pillow's `convert` copies it."""
    return image if image.mode == mode else image.convert(mode)


def has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "RGBA")


def _key_in_8_bits(key: Any, bits: int) -> Any:
    """Scale a PNG's colour key to 8 bits: Pillow scales the samples but leaves the key at its stored depth."""
    if isinstance(key, tuple) and bits == 16:
        return tuple(value >> 8 for value in key)
    if isinstance(key, int) and bits in (2, 4):
        return key * 255 // (2**bits - 1)
    return key


def _grey_from_16_bit(image: Image.Image) -> Image.Image:
    """The high byte of each sample; Pillow's own conversion clips everything above 255 to white."""
    grey = image.point(lambda sample: sample / 256).convert("L")
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        wide = image.convert("I")
        above, below = (wide.point(lambda sample, k=k: sample * k - clear * k).convert("L") for k in (1, -1))
        grey.putalpha(ImageChops.lighter(above, below).point(lambda distance: 255 * (distance > 0)))
    return grey


def _by_profile(image: Image.Image, profile: bytes, *, in_place: bool) -> Image.Image | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(_without_float_tags(profile)))
        if image.mode not in PROFILE_MODES.get(source.profile.xcolor_space, ()):
            return None
        alpha = image.getchannel("A") if has_alpha(image) else None
        mode = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL
        )
        if mode == "RGB" and _changes_nothing(transform):
            return image
        plain = _as_mode(image, mode)
        if mode == "RGB" and (in_place or plain is not image):
            result = transform.apply_in_place(plain)
        else:
            result = transform.apply(plain)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _without_float_tags(profile: bytes) -> bytes:
    """Rename the profile's floating-point transforms, so that lcms uses the integer ones instead.

    Floating-point transforms (ICC.1:2022, 9.2.40 and following: D2B0 to B2D3) may be a chain of any length whose
    elements share the same bytes: with an 87 KB profile lcms computed for 5 seconds on a single pixel, and with a
    chain twice as long for 10.
    """
    entries = int.from_bytes(profile[128:132], "big")
    ends = range(132, min(132 + 12 * entries, len(profile) - 12), 12)
    found = [at for at in ends if profile[at : at + 3] in (b"D2B", b"B2D")]
    if not found:
        return profile
    renamed = bytearray(profile)
    for at in found:
        renamed[at : at + 4] = renamed[at : at + 4].lower()
    return bytes(renamed)


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a test cube of colours comes out unchanged. True for most files with a profile: their profile is sRGB."""
    steps = range(0, 256, 51)
    cube = bytes(value for red in steps for green in steps for blue in steps for value in (red, green, blue))
    probe = Image.frombytes("RGB", (len(cube) // 3, 1), cube)
    result = ImageCms.applyTransform(probe, transform)
    return result is not None and all(abs(a - b) <= 1 for a, b in zip(cube, result.tobytes(), strict=True))
