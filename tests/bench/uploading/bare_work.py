"""The pipeline alone, in processes that are used again: what an upload takes at least."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

from imgsvc.imaging import pipeline
from imgsvc.imaging.recipe import Recipe, scratch_file
from imgsvc.imaging.warm_up import use_codecs
from tests.bench.uploading.syncs import Commits, store


class Bare:
    """So many warm processes; each call runs in one of them."""

    def __init__(self, pool: ProcessPoolExecutor, source: Path, folder: Path, recipe: Recipe) -> None:
        self._pool = pool
        self._given = str(source), str(folder), recipe.to_json()
        self.recipe = recipe

    def call(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        return self._pool.submit(function, *self._given, *arguments)


@contextmanager
def bare(count: int, source: Path, folder: Path, recipe: Recipe) -> Iterator[Bare]:
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=use_codecs) as pool:
        one = Bare(pool, source, folder, recipe)
        names = [variant.name for variant in recipe.variants]
        for future in [one.call(rendered, names) for _ in range(3 * count)]:
            future.result()  # warm
        yield one


def throughput(one: Bare, images: int) -> tuple[float, float]:
    """Images per second, and processor seconds of an image."""
    names = [variant.name for variant in one.recipe.variants]
    began = time.perf_counter()
    spent = [future.result()[1] for future in [one.call(rendered, names) for _ in range(images)]]
    return images / (time.perf_counter() - began), sum(spent) / images


def rendered(source: str, folder: str, recipe: str, names: Sequence[str]) -> tuple[float, float]:
    """Make these variants. Returns seconds, and processor seconds."""
    before, began = _processor_seconds(), time.perf_counter()
    outputs = {name: scratch_file(_own(folder), name).open("wb") for name in names}
    with Path(source).open("rb") as stream:
        pipeline.render(stream, "image/jpeg", Recipe.from_json(recipe), outputs)
    for output in outputs.values():
        output.close()
    return time.perf_counter() - began, _processor_seconds() - before


def previews(source: str, folder: str, recipe: str, count: int) -> float:
    """Seconds for so many previews, one after the other."""
    began = time.perf_counter()
    for _ in range(count):
        _preview(Path(source), _own(folder) / "preview.part", Recipe.from_json(recipe))
    return time.perf_counter() - began


def durable_preview(source: str, folder: str, recipe: str) -> float:
    """Seconds for one preview, and for the syncs between a 202 and its thumbnail: commit, file, folder, commit."""
    commits, part = Commits(_own(folder) / "log"), _own(folder) / "preview.part"
    began = time.perf_counter()
    commits.commit()
    _preview(Path(source), part, Recipe.from_json(recipe))
    with part.open("rb+") as stream:
        store(stream, part, part.with_suffix(".webp"))
    commits.commit()
    return time.perf_counter() - began


def _preview(source: Path, target: Path, recipe: Recipe) -> None:
    with source.open("rb") as stream, target.open("wb") as output:
        pipeline.preview(stream, "image/jpeg", recipe, {recipe.preview.name: output})


def _own(folder: str) -> Path:
    own = Path(folder) / str(os.getpid())
    own.mkdir(exist_ok=True)
    return own


def _processor_seconds() -> float:
    used = getrusage(RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
