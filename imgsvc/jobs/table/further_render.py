"""The data types of what is made of a completed image later."""

import json
from dataclasses import replace
from functools import cached_property
from typing import Literal, Self

import aiosqlite

from ...imaging.recipe import Recipe
from ...lazy_dataclass import dataclass
from .model import Job

# Why variants are made later. Lower numbers go first: a person waits for a focal point. `format`: in a further format;
# `again`: a task makes new or changed variants of many images.
Kind = Literal["focal", "format", "again"]
PRIORITY: dict[Kind, int] = {"focal": 0, "format": 1, "again": 9}
# What they are made from: the upload in the staging folder; or the kept source, and without one the largest variant
# that shows the whole picture.
RenderSource = Literal["staged", "variant"]


@dataclass(frozen=True, slots=True)
class NewRender:
    """Variants to make of a completed image. The estimated peak memory is in bytes."""

    kind: Kind
    recipe: Recipe
    source: RenderSource
    render_bytes: int


@dataclass(frozen=True)
class FurtherRender:
    """A row of renders."""

    render_id: int
    job_id: str
    image_id: str
    kind: Kind
    generation: int
    recipe_text: str
    keys: dict[str, str]  # {variant: key}
    source: RenderSource
    backend: str
    attempts: int
    starts: int
    deaths: int
    state: Literal["waiting", "running", "failed"]
    render_bytes: int
    task_id: str | None = None

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        return cls(
            render_id=row["render_id"],
            job_id=row["job_id"],
            image_id=row["image_id"],
            kind=row["kind"],
            generation=row["generation"],
            recipe_text=row["recipe"],
            keys=json.loads(row["keys"]),
            source=row["source"],
            backend=row["backend"],
            attempts=row["attempts"],
            starts=row["starts"],
            deaths=row["deaths"],
            state=row["state"],
            render_bytes=row["render_bytes"],
            task_id=row["task_id"],
        )

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.from_json(self.recipe_text)

    def recipe_now(self, job: Job) -> Recipe:
        """What is to be made of the image as it is now: its own crops around the new point, or around its point what a
        task wants.
        """
        if self.kind == "focal":
            crops = job.recipe.crops or self.recipe.variants
            return replace(job.recipe, variants=crops, further=(), focal=self.recipe.focal)
        return self.recipe if self.kind == "format" else replace(self.recipe, focal=job.recipe.focal)


@dataclass(frozen=True, slots=True)
class ClaimedRender:
    """A claimed row, and its image's row of the same moment."""

    render: FurtherRender
    job: Job
    render_bytes: int

    @property
    def as_job(self) -> Job:
        """For the lanes' memory: the image's job with the estimate and the history of this row."""
        render = self.render
        return replace(self.job, render_bytes=self.render_bytes, starts=render.starts, deaths=render.deaths)


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A file that no image's row names any more."""

    key_id: int
    backend: str
    bucket: str
    key: str

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        return cls(row["key_id"], row["backend"], row["bucket"], row["key"])
