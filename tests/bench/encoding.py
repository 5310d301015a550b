"""`./run bench bytes`: what quality and effort of WebP cost and bring, for each variant of the default sizes.

SSIM (Wang et al. 2004, equation 13) of the luma, against the same variant before it was encoded, over windows of 8 x 8
pixels that do not overlap: their means are what Pillow's BOX reduction gives. Bytes and processor seconds are sums over
all photos, SSIM is their mean. Without `--photos` drawn ones are used, whose figures are not those of a camera's.
"""

import argparse
import io
import json
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageMath, ImageOps

from fixtures import make
from imgsvc.imaging.encode import encode
from imgsvc.imaging.geometry import fit
from imgsvc.imaging.recipe import Variant
from imgsvc.imaging.resize import resized
from imgsvc.settings import Settings
from imgsvc.settings.sizes import longer_side

QUALITIES, EFFORTS = (75, 80, 85, 90), (0, 2, 4, 6)
WINDOW = 8  # pixels
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def main() -> None:
    parser = argparse.ArgumentParser("./run bench bytes", description=__doc__)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="of JPEG files; otherwise drawn ones")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    photos = list(opened(options.photos) if options.photos else drawn())
    rows = [row for name, size in Settings().images.sizes.items() for row in measured(name, longer_side(size), photos)]
    print(json.dumps([asdict(row) for row in rows]) if options.json else "\n".join(table(rows)))


def opened(folder: Path) -> Iterator[Image.Image]:
    yield from map(Image.open, sorted(folder.glob("*.jpg")))


def drawn() -> Iterator[Image.Image]:
    for seed, (width, height) in enumerate(((2400, 1800), (1500, 2000)), start=1):
        yield make.photo(width, height, seed)


@dataclass(frozen=True, slots=True)
class Row:
    """One variant with one quality and effort."""

    variant: str
    quality: int
    effort: int
    size_bytes: int
    ssim: float
    processor_seconds: float


def measured(name: str, side: int, photos: list[Image.Image]) -> Iterator[Row]:
    upright = [ImageOps.exif_transpose(photo).convert("RGB") for photo in photos]
    sources = [resized(one, fit(one.size, side)) for one in upright]
    for quality in QUALITIES:
        for effort in EFFORTS:
            variant, began = Variant(name, side, quality, effort), time.process_time()
            files = [_encoded(source, variant) for source in sources]
            spent = time.process_time() - began
            alike = [ssim(source, Image.open(io.BytesIO(data))) for source, data in zip(sources, files, strict=True)]
            yield Row(name, quality, effort, sum(map(len, files)), sum(alike) / len(alike), spent)


def _encoded(source: Image.Image, variant: Variant) -> bytes:
    output = io.BytesIO()
    encode(source.copy(), variant, output)
    return output.getvalue()


def ssim(one: Image.Image, other: Image.Image) -> float:
    """The mean structural similarity of two pictures of the same size: 1 for equal ones."""
    across, down = one.width // WINDOW, one.height // WINDOW
    x, y = (picture.convert("L").crop((0, 0, across * WINDOW, down * WINDOW)).convert("F") for picture in (one, other))

    def mean(values: Image.Image) -> Image.Image:
        return values.reduce(WINDOW)

    def product(left: Image.Image, right: Image.Image) -> Any:
        return ImageMath.lambda_eval(lambda args: args["a"] * args["b"], a=left, b=right)

    found = ImageMath.lambda_eval(
        _similarity, x=mean(x), y=mean(y), xx=mean(product(x, x)), yy=mean(product(y, y)), xy=mean(product(x, y))
    )
    return sum(array("f", found.tobytes())) / (across * down)


def _similarity(means: dict[str, Any]) -> Any:
    x, y = means["x"], means["y"]
    variances = means["xx"] - x * x + means["yy"] - y * y
    return (x * y * 2 + C1) * ((means["xy"] - x * y) * 2 + C2) / ((x * x + y * y + C1) * (variances + C2))


def table(rows: list[Row]) -> Iterator[str]:
    """As Markdown: a line for each quality, a column for each effort."""
    yield "| variant | quality | " + " | ".join(f"effort {effort}" for effort in EFFORTS) + " |"
    yield "|---|---:|" + "---:|" * len(EFFORTS)
    for variant in dict.fromkeys(row.variant for row in rows):
        for quality in QUALITIES:
            cells = [row for row in rows if (row.variant, row.quality) == (variant, quality)]
            shown = (f"{row.size_bytes / 1000:,.1f} KB, {row.ssim:.4f}, {row.processor_seconds:.2f} s" for row in cells)
            yield f"| {variant} | {quality} | " + " | ".join(shown) + " |"


if __name__ == "__main__":
    main()
