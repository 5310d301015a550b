"""Settings of processing: the variants, the worker processes, and how jobs are retried and kept."""

import re
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, field_validator

from ..imaging.recipe import POSTER, KeepSource, Recipe, Variant
from .fields import LIST, TABLE, Section, setting
from .sizes import AvifEffort, Effort, Quality, Size, SizeSetting, animated_of, format_of, variant_of

VARIANT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
VARIANT_NAME_WORDS = "1 to 32 letters a-z, digits, '_' and '-', the first a letter or digit"


class Images(Section):
    sizes: Annotated[dict[str, SizeSetting], TABLE] = setting(
        {"thumbnail": 150, "medium": 600, "large": 1200, "original": 4096},
        'Longer side, never enlarged, or a table { width, height, fit = "inside" or "cover", format = "webp", '
        '"jpeg" or "avif", quality, effort, animated }. More names may be added; the smallest is made first, as the '
        "preview.",
        unit="pixels",
        env="IMAGE_SIZES",
    )
    webp_quality: Quality = setting(85, "Quality of the variants; 100 is the best.", env="WEBP_QUALITY")
    webp_quality_by_size: Annotated[dict[str, Quality], TABLE] = setting(
        {}, "Quality of single variants, such as {thumbnail=75}."
    )
    webp_effort: Effort = setting(4, "Effort of the encoder: 0 is fast, 6 makes small files.")
    webp_effort_by_size: Annotated[dict[str, Effort], TABLE] = setting(
        {"original": 2},
        "Effort of single variants. The largest costs most of the time: effort 2 halves that for about 4 % more bytes.",
    )
    formats: Annotated[tuple[Literal["webp", "avif"], ...], Field(min_length=1), LIST] = setting(
        ("webp",),
        "Formats of each WebP variant. With avif it is also made as AVIF, at its own URL, once the job is completed; "
        "that needs pillow-avif-plugin.",
    )
    avif_quality: Quality = setting(
        70, "Quality of the variants in AVIF, on a scale of its own: 70 looks about like 85 in WebP."
    )
    avif_effort: AvifEffort = setting(4, "Effort of the encoder of AVIF: 0 is fast, 10 makes small files.")
    reuse: bool = setting(
        True,
        "A photo that the same user uploads once more, with the same settings, gets the variants of the first (hard "
        "links, or copies by the store) instead of being rendered. false: each upload is rendered.",
    )
    keep_source: KeepSource = setting(
        "none",
        "What is kept of an upload once its variants are made, to make others later and for its owner to fetch. "
        "none: nothing; stripped: the upload without its metadata, with the same pixels; as_is: the upload as it "
        "came, GPS included. What is kept already stays until `imgsvc images drop-sources`.",
    )
    heic: Literal["cage", "require", "off"] = setting(
        "cage",
        "HEIC photos, where pillow-heif is installed. cage: they are decoded in the cage of the workers, and refused "
        "with 415 where it is not in force; require: the same, and the service does not start without pillow-heif, "
        "which ./run serve then installs; off: they are refused.",
    )
    max_pixels: int = setting(
        50_000_000, "Width x height; larger images are refused with 422.", unit="pixels", ge=1, le=500_000_000
    )
    max_frames: int = setting(
        1000,
        "Frames of an animation. One with more is shown by its first frame; nothing is refused for its frames.",
        unit="frames",
        ge=1,
    )
    animated: bool = setting(
        True,
        "true: an animation (GIF, WebP, APNG) stays animated in its WebP variants, except the smallest of several. "
        "false: stills. `animated` in the table of a size overrides this; the size named poster is always a still.",
    )
    animation_factor: float = setting(
        8,
        "Width x height x frames of an animation, in times max_pixels. A larger one is shown by its first frame.",
        unit="times",
        ge=0,
        le=1000,
    )
    animation_seconds: float = setting(
        60, "Length of an animation. A longer one is shown by its first frame.", unit="seconds", ge=0, le=3600
    )

    @field_validator("sizes")
    @classmethod
    def _named(cls, value: dict[str, int | Size]) -> dict[str, int | Size]:
        if not value:
            raise ValueError("names no variant")
        for name in value:
            if not VARIANT_NAME.fullmatch(name):
                raise ValueError(f"the name of a variant must be {VARIANT_NAME_WORDS}, not {name!r}")
        if animated_of(value.get(POSTER, 1)):
            raise ValueError(f"{POSTER} is the still of an animation: it can't be animated")
        return value

    @field_validator("formats")
    @classmethod
    def _has_webp(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "webp" not in value or len(set(value)) < len(value):
            raise ValueError("names each format once, and webp among them: AVIF is made beside it")
        return value

    @property
    def writes_avif(self) -> bool:
        return "avif" in self.formats or any(format_of(size) == "avif" for size in self.sizes.values())

    @cached_property
    def recipe(self) -> Recipe:
        variants = self._with_animations(tuple(self._variant(name, size) for name, size in self.sizes.items()))
        further: tuple[Variant, ...] = ()
        if "avif" in self.formats:
            in_webp = (variant for variant in variants if variant.format == "webp")
            further = tuple(one.also_in("avif", self.avif_quality, self.avif_effort) for one in in_webp)
        return Recipe(
            variants,
            self.max_pixels,
            self.max_frames,
            further=further,
            animation_factor=self.animation_factor,
            animation_seconds=self.animation_seconds,
            keep_source=self.keep_source,
        )

    def _with_animations(self, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        """Say of each variant whether an animation stays one: unless a table does, not for the smallest of several."""
        smallest = Recipe(variants, 0, 0).preview.name if len(variants) > 1 else POSTER
        usual = {one.name: self.animated and one.name not in (smallest, POSTER) for one in variants}
        configured = {name: animated_of(size) for name, size in self.sizes.items()}
        animated = {name: usual[name] if value is None else value for name, value in configured.items()}
        return tuple(replace(one, animated=one.format == "webp" and bool(animated[one.name])) for one in variants)

    def _variant(self, name: str, size: int | Size) -> Variant:
        if format_of(size) == "avif":
            return variant_of(name, size, self.avif_quality, self.avif_effort)
        quality = self.webp_quality_by_size.get(name, self.webp_quality)
        return variant_of(name, size, quality, self.webp_effort_by_size.get(name, self.webp_effort))


class Jobs(Section):
    max_attempts: int = setting(
        3, "Attempts after storage and I/O errors; two at most after timeouts.", unit="attempts", ge=1, le=100
    )
    retry_delay_seconds: float = setting(60, "Time between two attempts.", unit="seconds", ge=0, le=86_400)
    lock_wait_seconds: float = setting(
        30, "How long a start waits for a predecessor to end.", unit="seconds", ge=0, le=3600
    )
    max_waiting: int = setting(
        10_000, "With more jobs waiting, uploads are refused with 503 and Retry-After.", unit="jobs", ge=1
    )
    failed_source_hours: float = setting(
        24,
        "How long the upload of a failed job is kept if another attempt could help; it may contain GPS data.",
        unit="hours",
        ge=0,
        le=87_600,
    )
    events_days: float = setting(90, "How long the audit trail is kept.", unit="days", ge=1, le=36_500)
    deleted_rows_days: float = setting(
        365,
        "How long the remains of a deleted image (IDs and times, nothing about its user) stay in the database once "
        "its files are gone; 0: forever.",
        unit="days",
        ge=0,
        le=36_500,
    )
