"""`./run bench formats`: time and bytes of each format at the same SSIM as our WebP, for each variant of the defaults.

WebP is encoded with the quality and effort of the defaults. For AVIF, with each effort, and for JPEG the lowest quality
is looked for whose mean SSIM is not below WebP's; bytes and processor seconds are sums over all photos. SSIM is that of
`./run bench bytes`. "By default" is what `avif_quality` and `avif_effort` give.
"""

import argparse
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image, ImageOps

from imgsvc.imaging import optional_codecs
from imgsvc.imaging.encode import encode
from imgsvc.imaging.geometry import fit
from imgsvc.imaging.recipe import Format, Variant
from imgsvc.imaging.resize import resized
from imgsvc.settings import Settings
from tests.bench.encoding import drawn, opened, ssim

EFFORTS = (1, 2, 3, 4, 6)
MOST_COSTLY = 4  # effort at which pictures of more pixels than this are still measured
MANY_PIXELS = 2_000_000
QUALITIES = range(35, 96)


@dataclass(frozen=True, slots=True)
class Row:
    """One variant in one format. Bytes and processor seconds are those of all photos."""

    variant: str
    format: Format
    effort: int
    quality: int
    size_bytes: int
    ssim: float
    processor_seconds: float
    default: bool = False


def main() -> None:
    parser = argparse.ArgumentParser("./run bench formats", description=__doc__)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="of JPEG files; otherwise drawn ones")
    parser.add_argument("--variants", nargs="+", help="of these only")
    parser.add_argument("--efforts", nargs="+", type=int, default=EFFORTS, help="of AVIF")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    optional_codecs.load()
    photos = list(opened(options.photos) if options.photos else drawn())
    upright = [ImageOps.exif_transpose(photo).convert("RGB") for photo in photos]
    images = Settings().images
    defaults = images.avif_quality, images.avif_effort
    wanted = [one for one in images.recipe.variants if one.name in (options.variants or images.sizes)]
    rows = [row for one in wanted for row in measured(one, upright, defaults, options.efforts)]
    print(json.dumps([asdict(row) for row in rows]) if options.json else "\n".join(table(rows)))


def measured(
    webp: Variant, photos: list[Image.Image], defaults: tuple[int, int], efforts: Sequence[int]
) -> Iterator[Row]:
    sources = [resized(one, fit(one.size, webp.side)) for one in photos]
    first = encoded(webp, sources)
    yield first
    yield alike(replace(webp, format="jpeg", effort=0), sources, first.ssim)
    large = max(one.width * one.height for one in sources) > MANY_PIXELS
    for effort in efforts:
        if not large or effort <= MOST_COSTLY:
            yield alike(replace(webp, format="avif", effort=effort), sources, first.ssim)
    own = replace(webp, format="avif", quality=defaults[0], effort=defaults[1])
    yield replace(encoded(own, sources), default=True)


def alike(variant: Variant, sources: list[Image.Image], wanted: float) -> Row:
    """With the lowest quality that is as good."""
    low, high = QUALITIES.start, QUALITIES.stop
    while low < high:
        middle = (low + high) // 2
        if encoded(replace(variant, quality=middle), sources).ssim >= wanted:
            high = middle
        else:
            low = middle + 1
    return encoded(replace(variant, quality=low), sources)


def encoded(variant: Variant, sources: list[Image.Image]) -> Row:
    size, seconds, likeness = 0, 0.0, 0.0
    for source in sources:
        output, copy = io.BytesIO(), source.copy()
        began = time.process_time()
        encode(copy, variant, output)
        seconds += time.process_time() - began
        size += output.tell()
        likeness += ssim(source, Image.open(output).convert("RGB"))
    return Row(variant.name, variant.format, variant.effort, variant.quality, size, likeness / len(sources), seconds)


def table(rows: list[Row]) -> Iterator[str]:
    """As Markdown: bytes and time as shares of WebP's."""
    yield "| variant | format | effort | quality | SSIM | bytes | time |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for row in rows:
        webp = next(one for one in rows if (one.variant, one.format) == (row.variant, "webp"))
        size, spent = row.size_bytes / webp.size_bytes, row.processor_seconds / webp.processor_seconds
        form = f"{row.format}, by default" if row.default else row.format
        exact = f" ({row.size_bytes / 1000:,.0f} KB)" if row is webp else ""
        took = f" ({row.processor_seconds:.2f} s)" if row is webp else ""
        yield (
            f"| {row.variant} | {form} | {row.effort or '-'} | {row.quality} | {row.ssim:.4f} "
            f"| {size:.0%}{exact} | {spent:.1f}{took} |"
        )


if __name__ == "__main__":
    main()
