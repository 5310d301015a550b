"""The pipeline for files by their path: the service itself passes open files."""

from collections.abc import Collection
from contextlib import ExitStack
from math import inf
from pathlib import Path

from imgsvc.imaging import limits, open, pipeline
from imgsvc.imaging.header import Header
from imgsvc.imaging.open import Opened
from imgsvc.imaging.pipeline import Rendering
from imgsvc.imaging.recipe import Recipe, scratch_file


def probe(path: Path, mime: str, *, max_pixels: int) -> Header:
    with path.open("rb") as stream:
        return limits.probe(stream, mime, max_pixels=max_pixels)


def open_image(path: Path, header: Header, side: int, deadline: float = inf) -> Opened:
    with path.open("rb") as stream:
        return open.open_image(stream, header, side, deadline)


def preview(source: Path, mime: str, recipe: Recipe, folder: Path, *, deadline: float = inf) -> Rendering | None:
    with source.open("rb") as stream, scratch_file(folder, recipe.preview.name).open("w+b") as output:
        return pipeline.preview(stream, mime, recipe, {recipe.preview.name: output}, deadline=deadline)


def render(
    source: Path, mime: str, recipe: Recipe, folder: Path, *, done: Collection[str] = (), deadline: float = inf
) -> Rendering:
    """Make all variants except those named in `done`."""
    names = [variant.name for variant in recipe.variants if variant.name not in done]
    with ExitStack() as stack:
        stream = stack.enter_context(source.open("rb"))
        outputs = {name: stack.enter_context(scratch_file(folder, name).open("w+b")) for name in names}
        return pipeline.render(stream, mime, recipe, outputs, deadline=deadline)
