"""Pictures of every kind, decoded and encoded in the cage and outside of it.

`python -m tests.support.caged_pictures` writes {name: [digest in the cage, digest outside]} as JSON.
"""

import hashlib
import io
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator

from PIL import Image, ImageCms

from fixtures import make, profiles
from imgsvc.jobs.lanes.cage import Cage
from tests.support.caged_child import said_in

SRGB = ImageCms.createProfile("sRGB")


def pictures() -> Iterator[tuple[str, bytes]]:
    for form, options in (
        ("JPEG", {"quality": 80}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ):
        yield f"{form} {options}", make.encoded(make.photo(640, 480), form, **options)
    for mode in ("L", "CMYK"):
        yield f"JPEG {mode}", make.encoded(make.quadrants(mode=mode), "JPEG")
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        yield (
            f"PNG {mode}",
            make.encoded(make.quadrants().convert("L" if mode == "I;16" else mode).convert(mode), "PNG"),
        )
    yield "WEBP RGBA", make.encoded(make.quadrants(mode="RGBA"), "WEBP")
    for form in ("PNG", "WEBP", "GIF"):
        yield f"{form} animation", make.animation(form)
    for name in ("display_p3", "adobe_rgb", "srgb"):
        yield name, make.encoded(make.quadrants(), "JPEG", icc_profile=getattr(profiles, name)())
    yield "CMYK with a profile", make.encoded(make.quadrants(mode="CMYK"), "JPEG", icc_profile=profiles.cmyk())
    yield "interlaced", make.interlaced(61, 47)
    yield "16 bit", make.grey_16_bit()
    yield "palette", make.palette_with_transparency()
    yield "EXIF", make.leaky_jpeg()
    yield "one colour", make.one_colour_webp(4000, 3000)


def digest(source: int, target: int) -> str:
    """Decode from one descriptor and encode to another, with and without loss."""
    with Image.open(os.fdopen(source, "rb", closefd=False), formats=["JPEG", "PNG", "WEBP", "GIF"]) as image:
        image.load()
        profile = image.info.get("icc_profile")
        rgb: Image.Image | None = image.convert("RGB")
        if profile:
            rgb = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), SRGB, outputMode="RGB"
            )
        assert rgb is not None
        rgb.thumbnail((150, 150), Image.Resampling.LANCZOS)
    with os.fdopen(target, "r+b", closefd=False) as out:
        for lossless in (False, True):
            rgb.save(out, "WEBP", quality=85, method=4, lossless=lossless)
        out.seek(0)
        return hashlib.sha256(out.read()).hexdigest()


def main() -> None:
    warnings.simplefilter("error")
    cage, found = Cage.build("best"), {}
    assert cage.posture.seccomp, cage.posture
    for form in ("JPEG", "PNG", "WEBP", "GIF"):  # as the warm process: imports and first use, before the first fork
        _run(make.encoded(make.quadrants(8, 8), form, icc_profile=profiles.srgb()), digest)
    for name, data in pictures():
        caged = _run(data, lambda source, target: said_in(cage, lambda: digest(source, target), (source, target)))
        found[name] = [caged, _run(data, digest)]
    json.dump(found, sys.stdout)


def _run(data: bytes, work: Callable[[int, int], object]) -> object:
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(data)
        source.seek(0)
        return work(source.fileno(), target.fileno())


if __name__ == "__main__":
    main()
