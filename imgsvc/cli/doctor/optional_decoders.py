"""The decoders of HEIC and AVIF: packages of their own, used in the cage only."""

from collections.abc import Iterator

from ...imaging import optional_codecs
from ...imaging.optional_codecs import AVIF, HEIC, TooOld
from ...settings import Settings
from .finding import Finding, well, wrong

NAMES = {optional_codecs.HEIC: "HEIC", optional_codecs.AVIF: "AVIF"}
NEEDED = "install imgsvc[avif], or use ./run serve"
HEIC_NEEDED = "install imgsvc[heic], or use ./run serve"
LICENCE = "the wheel as a whole is GPL-2.0, because of x265"


def optional_decoders(settings: Settings) -> Iterator[Finding]:
    """Name each decoder with its version, or why its type is not accepted."""
    for mime, loader in optional_codecs.LOADERS.items():
        name, package = NAMES[mime], optional_codecs.PACKAGES[mime]
        if mime == HEIC and settings.images.heic == "off":
            yield well(f"{name} is not accepted: [images] heic is off")
            continue
        try:
            versions = loader()
        except ImportError:
            if mime == AVIF and settings.images.writes_avif:
                yield wrong(f"[images] formats or sizes ask for AVIF, but {package} is not installed", NEEDED)
            if mime == HEIC and settings.images.heic == "require":
                yield wrong(f'[images] heic = "require", but {package} is not installed', HEIC_NEEDED)
            yield well(f"{name} is not accepted: {package} is not installed")
        except TooOld as error:
            yield wrong(f"{name} is not accepted: {error}", f"update {package}")
        else:
            licence = f" ({LICENCE})" if mime == HEIC else ""
            where = "" if settings.workers.cage != "off" else "; not accepted, since [workers] cage is off"
            yield well(f"{name}: {versions}, by {optional_codecs.installed().get(mime, package)}{licence}{where}")
