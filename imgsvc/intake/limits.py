"""The limits of one upload: those of the service, narrowed by the token, never widened."""

import math
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

from ..access.token_limits import UNTIGHTENED, TokenLimits
from ..imaging.recipe import Recipe
from ..jobs.table.quota import Quota
from ..lazy_dataclass import dataclass

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The limits. `max_bytes` is for the file; `recipe` has the pixel limit; `buckets` are whole names, None: any."""

    max_bytes: int
    recipe: Recipe
    types: tuple[str, ...]
    quota: Quota
    buckets: tuple[str, ...] | None = None

    def tightened(self, by: TokenLimits) -> "UploadLimits":
        if by == UNTIGHTENED:
            return self
        return UploadLimits(
            max_bytes=_least(self.max_bytes, by.max_bytes),
            recipe=replace(self.recipe, max_pixels=_least(self.recipe.max_pixels, by.max_pixels)),
            types=_both(self.types, by.allowed_types) or (),
            quota=_tightened(self.quota, by.uploads_per_hour),
            buckets=_both(self.buckets, by.buckets),
        )

    def check_bucket(self, bucket: str) -> None:
        """Raises BucketNotAllowed."""
        if self.buckets is not None and bucket not in self.buckets:
            raise BucketNotAllowed(bucket, self.buckets)


class BucketNotAllowed(Exception):
    """The token does not allow this bucket."""

    def __init__(self, bucket: str, allowed: tuple[str, ...]) -> None:
        super().__init__(bucket)
        self.bucket, self.allowed = bucket, allowed


def _least(limit: int, narrower: int | None) -> int:
    return limit if narrower is None else min(limit, narrower)


def _both(ours: tuple[str, ...] | None, theirs: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The intersection; None stands for everything."""
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    return tuple(one for one in ours if one in theirs)


def _tightened(quota: Quota, per_hour: int | None) -> Quota:
    """Convert a limit per hour to one window, rounded down, so that it also holds if windows are short."""
    if per_hour is None:
        return quota
    hours = Fraction(quota.window // timedelta(microseconds=1), HOUR // timedelta(microseconds=1))
    return replace(quota, max_uploads=min(quota.max_uploads, math.floor(per_hour * hours)))
