"""Is Pillow the fast one, in this process and on this processor, and can it do what is asked of it?"""

import io
import platform
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...settings import Settings
from .finding import Finding, warning, well, wrong

# `vzeroupper`: compilers end each function with it that used the wide registers, and nothing built without AVX has any.
VZEROUPPER = b"\xc5\xf8\x77"
BY_CHANCE = 10  # such bytes in a library that were never meant as that instruction
TURNS = 5
FASTER = (
    1.2  # SIMD resizing takes a third of the time of the code that has no SIMD form; without it, three times as much
)


def pillow(_settings: Settings) -> Iterator[Finding]:
    """The instructions are looked up in the library's own code before that is loaded: wrong ones would kill us too."""
    wide, able = _built_for_avx2(), _processor_has("avx2")
    if wide and able is False:
        advice = 'build it again with CC="cc", or the container with --build-arg SIMD='
        yield wrong("pillow-simd is compiled for AVX2, which this processor lacks: every worker will die", advice)
        return
    import PIL

    version = PIL.__version__
    if not version.endswith(".post0"):
        advice = "install from requirements.lock with --no-deps, as ./run setup does: something put Pillow over it"
        yield warning(f"this is Pillow {version} and not pillow-simd: resizing takes several times as long", advice)
        return
    fast, scalar = _resize_times()
    measured = f"resizing in {fast * 1000:.1f} ms, {scalar * 1000:.1f} where there is no SIMD"
    if scalar < fast * FASTER:
        advice = "try again when the machine is idle; else build pillow-simd again"
        yield warning(f"pillow-simd {version} is no faster than plain code: {measured}", advice)
    elif wide:
        yield well(f"pillow-simd {version} with AVX2: {measured}")
    elif able:
        advice = 'build it again with CC="cc -mavx2", or the container without --build-arg SIMD='
        yield warning(f"pillow-simd {version} without AVX2, which this processor has: {measured}", advice)
    else:
        yield well(f"pillow-simd {version} without AVX2, as this processor ({platform.machine()}): {measured}")


def codecs(_settings: Settings) -> Iterator[Finding]:
    """Each codec encodes and decodes something here."""
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
    said = (
        f"JPEG ({jpeg}), PNG (zlib {features.version('zlib')}), "
        f"WebP with animations ({features.version('webp')}), colour profiles (lcms {features.version('littlecms2')})"
    )
    yield well(said) if turbo else warning(said, "libjpeg-turbo is several times as fast: build pillow-simd with it")


def _built_for_avx2() -> bool | None:
    """None where it can't be told."""
    spec = find_spec("PIL")
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("_imaging.*.so")]
    if not files or platform.machine() != "x86_64":
        return None
    return files[0].read_bytes().count(VZEROUPPER) > BY_CHANCE


def _processor_has(feature: str) -> bool | None:
    """None where it can't be told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else feature in flags


def _resize_times() -> tuple[float, float]:
    """Seconds for the same resize of colours, and of floating-point samples, which nobody wrote SIMD code for."""
    from PIL import Image

    noise = Image.effect_noise((1200, 900), 60)
    colour, scalar = Image.merge("RGB", (noise, noise, noise)), noise.convert("F")
    best = [float("inf"), float("inf")]
    for _ in range(TURNS):  # by turns, so that whatever else runs slows both
        for index, image in enumerate((colour, scalar)):
            began = time.perf_counter()
            image.resize((300, 225), Image.Resampling.LANCZOS)
            best[index] = min(best[index], time.perf_counter() - began)
    return best[0], best[1]


def _round_trip(form: str, **options: Any) -> Any:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), "#c03030").save(buffer, form, **options)
    image = Image.open(buffer, formats=[form])
    image.load()
    if image.size != (32, 24) or max(abs(a - b) for a, b in zip(_rgb(image), (0xC0, 0x30, 0x30), strict=True)) > 4:
        raise ValueError("what was decoded is not what was encoded")
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
        raise ValueError(f"an animation of 2 frames came out with {moving.n_frames}")


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
