"""The decoders of HEIC and AVIF, which are packages of their own: loaded only into processes that can cage a picture.

Both have had holes each year, so neither is imported by the service, nor used without the cage. AVIF is encoded by the
same package, from pixels of our own: that needs no cage.
"""

import re
import sys
from collections.abc import Callable

HEIC, AVIF = "image/heic", "image/avif"
MIMES = {"HEIF": HEIC, "AVIF": AVIF}  # by Pillow's names
PACKAGES = {HEIC: "pillow-heif", AVIF: "pillow-avif-plugin"}
# 1.23.5 mends a fault that its authors rate as high, as 1.23.3 and 1.23.4 did; 1.23.6 is what the lock file has.
LIBHEIF_FLOOR = (1, 23, 5)
_loaded: dict[str, str] = {}  # MIME type: the libraries' versions


class TooOld(Exception):
    """A library below its floor."""


def load() -> dict[str, str]:
    """Load the decoders that are installed and new enough. Returns the libraries' versions by MIME type."""
    for mime, loader in LOADERS.items():
        try:
            _loaded[mime] = loader()
        except (ImportError, TooOld):
            _loaded.pop(mime, None)
    return dict(_loaded)


def load_encoder() -> None:
    """Load the encoder of AVIF. Its decoder is not used for that reason. Raises ImportError."""
    if "pillow_avif" not in sys.modules:
        _avif()


def is_decoded(form: str) -> bool:
    """Whether this process decodes the format of Pillow's name: those of other packages only once they are loaded."""
    return form not in MIMES or MIMES[form] in _loaded


def installed() -> dict[str, str]:
    """The installed packages and their versions by MIME type, without importing them."""
    from importlib.metadata import PackageNotFoundError, version  # 15 ms, for which no worker has to wait

    found = {}
    for mime, package in PACKAGES.items():
        try:
            found[mime] = f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return found


def _heif() -> str:
    import pillow_heif

    numbers = pillow_heif.libheif_version()
    if tuple(int(part) for part in re.findall(r"\d+", numbers)[:3]) < LIBHEIF_FLOOR:
        floor = ".".join(map(str, LIBHEIF_FLOOR))
        raise TooOld(f"libheif {numbers} is older than {floor}, which mends faults that a picture could use")
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    libde265 = pillow_heif.libheif_info()["decoders"].get("libde265", "")
    decoder = re.search(r"[\d.]*\d", libde265.partition("version")[2])
    return f"libheif {numbers}" + (f", libde265 {decoder[0]}" if decoder else "")


def _avif() -> str:
    import pillow_avif
    from pillow_avif import AvifImagePlugin

    AvifImagePlugin.DECODE_CODEC_CHOICE = "dav1d"
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if not AvifImagePlugin.SUPPORTED or not pillow_avif._avif.encoder_codec_available("aom"):
        raise ImportError("pillow-avif-plugin has no library")
    dav1d = AvifImagePlugin.get_codec_version("dav1d") or ""
    return f"libavif {pillow_avif._avif.libavif_version}" + (f", dav1d {dav1d}" if dav1d else "")


LOADERS: dict[str, Callable[[], str]] = {HEIC: _heif, AVIF: _avif}
