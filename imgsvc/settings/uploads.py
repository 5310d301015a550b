"""Settings of uploads: their limits, their rate, and the Redis that instances share for it."""

import re
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from .fields import LIST, MEGABYTE, Seconds, Section, setting

MimeType = Literal["image/jpeg", "image/png", "image/webp", "image/gif", "image/heic", "image/avif"]

NO_SENTINEL = "one server is needed: Sentinel and Cluster are not supported, name the primary"


class Uploads(Section):
    max_size_mb: float = setting(
        10,
        "Limit for the file itself; 1 MB = 1,048,576 bytes.",
        unit="MB",
        env="MAX_UPLOAD_SIZE_MB",
        gt=0,
        le=4096,
    )
    allowed_mime_types: Annotated[tuple[MimeType, ...], Field(min_length=1), LIST] = setting(
        ("image/jpeg", "image/png", "image/webp", "image/gif", "image/heic", "image/avif"),
        "Types that are accepted: these or fewer; detected from the content. HEIC and AVIF only where their decoders "
        "are installed and the cage of the workers is in force.",
        env="ALLOWED_MIME_TYPES",
    )
    idle_timeout_seconds: Seconds = setting(15, "A body that pauses longer is dropped.")
    min_bytes_per_second: int = setting(
        1024,
        "A body that is slower than this over idle_timeout_seconds is dropped; 0: never.",
        unit="bytes per second",
        ge=0,
    )
    max_open_per_user: int = setting(
        64, "Uploads of one user in progress at the same time; more get 429.", unit="uploads", ge=1
    )
    max_open: int = setting(
        512, "Uploads of all users in progress at the same time; more get 503.", unit="uploads", ge=1
    )

    @cached_property
    def max_bytes(self) -> int:
        return int(self.max_size_mb * MEGABYTE)


class RateLimit(Section):
    max_uploads: int = setting(
        50, "Uploads per user in one fixed window.", unit="uploads", env="RATE_LIMIT_MAX_UPLOADS", ge=1
    )
    window_minutes: float = setting(
        60, "Length of a window.", unit="minutes", env="RATE_LIMIT_WINDOW_MINUTES", gt=0, le=525_600
    )


class ByteQuotas(Section):
    bytes_per_user: int = setting(
        0, "The most bytes that one user's images may take; more is refused with 507. 0: no limit.", unit="bytes", ge=0
    )
    bytes_per_org: int = setting(
        0, "The same for all images of an organisation together. 0: no limit.", unit="bytes", ge=0
    )


class Redis(Section):
    url: SecretStr = setting(
        SecretStr(""),
        "Address of Redis or Valkey: redis://, rediss:// (TLS) or unix://, and the same as valkey:// and valkeys://; "
        "empty: no Redis. Instances with the same Redis share "
        "the rate limit; while it is unavailable each counts alone.",
        env="REDIS_URL",
        may_hold_password=True,
    )
    timeout_ms: float = setting(
        50,
        "An upload waits no longer than this for Redis, which then counts as unavailable.",
        unit="milliseconds",
        gt=0,
        le=10_000,
    )
    prefix: str = setting("imgsvc:", "Prefix of all keys; instances with the same prefix share their limit.")

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if re.match(r"[a-z+-]*(sentinel|cluster)[a-z+-]*://", text):
            raise ValueError(NO_SENTINEL)
        if text and not re.match(r"((redis|valkey)s?|unix)://", text):
            raise ValueError("must be empty or begin with redis://, rediss://, valkey://, valkeys:// or unix://")
        if "," in text.partition("://")[2].partition("/")[0].rpartition("@")[2]:
            raise ValueError(f"names several servers; {NO_SENTINEL}")
        return value
