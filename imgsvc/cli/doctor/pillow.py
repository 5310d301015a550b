"""Checks Pillow: whether it is pillow-simd, compiled for this processor, with the needed codecs."""

import io
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...imaging import simd
from ...settings import Settings
from .finding import Finding, warning, well, wrong

RESIZING = Path(__file__).with_name("resizing.py")
LIMIT_SECONDS = 15
FASTER = (
    1.2  # SIMD resizing takes a third of the time of the code that has no SIMD form; without it, three times as much
)


def pillow(_settings: Settings) -> Iterator[Finding]:
    """Resizing is timed in a separate process: unsupported processor instructions would end this one."""
    import PIL

    version = PIL.__version__
    if not version.endswith(".post0"):
        yield _plain(version)
        return
    build = simd.INSTRUCTIONS.get(simd.choose() or "", "a build of unknown instructions")
    line = [sys.executable, str(RESIZING)]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # for the same build
    timed = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environ)  # noqa: S603, our own script
    if timed.returncode == -signal.SIGILL:
        advice = 'build it again with CC="cc", or the container with --build-arg SIMD=none'
        yield wrong(
            f"pillow-simd {version} is compiled for another processor than this one ({platform.machine()}): "
            "every worker will crash (SIGILL)",
            advice,
        )
        return
    if timed.returncode:
        lines = timed.stderr.strip().splitlines() or [f"status {timed.returncode}"]
        yield wrong(f"pillow-simd {version} can't resize: {lines[-1]}", "build it again")
        return
    fast, scalar = (float(seconds) for seconds in timed.stdout.split())
    measured = f"resizing in {fast * 1000:.1f} ms, {scalar * 1000:.1f} without SIMD"
    if scalar < fast * FASTER:
        advice = "try again on an idle machine; otherwise build pillow-simd again"
        yield warning(f"pillow-simd {version} is no faster than plain code: {measured}", advice)
    else:
        yield well(f"pillow-simd {version}, {build}: {measured}")


def _plain(version: str) -> Finding:
    """What Pillow in the place of pillow-simd means: it was chosen, or it was installed by mistake."""
    text = f"this is Pillow {version} and not pillow-simd: resizing takes several times as long"
    if simd.choose() != simd.NONE:
        return warning(text, "install from requirements.lock with --no-deps: Pillow was installed over pillow-simd")
    if not simd.processor_features():
        return well(f"{text}; pillow-simd can't be built for this processor ({platform.machine()})")
    advice = "this processor runs pillow-simd: build the container without SIMD=none, or install with ./run setup"
    return warning(f"{text}, as this build was asked to be", advice)


def codecs(_settings: Settings) -> Iterator[Finding]:
    """Encode and decode a picture with each codec."""
    from PIL import features

    tried: dict[str, Callable[[], None]] = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp, "colour profiles": _profiles}
    for name, attempt in tried.items():
        try:
            attempt()
        except Exception as error:
            advice = "build pillow-simd again, with the development files of libjpeg, zlib, libwebp and lcms2 installed"
            yield wrong(f"{name}: {error}", advice)
            return
    turbo = features.check("libjpeg_turbo")
    jpeg = f"libjpeg-turbo {features.version('libjpeg_turbo')}" if turbo else f"libjpeg {features.version('jpg')}"
    text = (
        f"JPEG ({jpeg}), PNG (zlib {features.version('zlib')}), "
        f"WebP with animations ({features.version('webp')}), colour profiles (lcms {features.version('littlecms2')})"
    )
    yield well(text) if turbo else warning(text, "libjpeg-turbo is several times as fast: build pillow-simd with it")


def _round_trip(form: str, **options: Any) -> Any:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), "#c03030").save(buffer, form, **options)
    image = Image.open(buffer, formats=[form])
    image.load()
    if image.size != (32, 24) or max(abs(a - b) for a, b in zip(_rgb(image), (0xC0, 0x30, 0x30), strict=True)) > 4:
        raise ValueError("the decoded picture differs from the encoded one")
    return image


def _rgb(image: Any) -> tuple[int, int, int]:
    red, green, blue = image.convert("RGB").getpixel((16, 12))
    return red, green, blue


def _jpeg() -> None:
    _round_trip("JPEG", quality=95, progressive=True)


def _png() -> None:
    _round_trip("PNG")


def _webp() -> None:
    from PIL import Image

    _round_trip("WEBP", quality=95)
    moving = _round_trip("WEBP", quality=95, save_all=True, append_images=[Image.new("RGB", (32, 24), "blue")])
    if moving.n_frames != 2:
        raise ValueError(f"an animation of 2 frames was decoded with {moving.n_frames}")


def _profiles() -> None:
    from PIL import Image, ImageCms

    lab = ImageCms.profileToProfile(
        Image.new("RGB", (1, 1), "white"),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    if lab is None or lab.tobytes()[0] < 250:
        raise ValueError("white is not converted to white")
