"""Settings of webhooks: whom the service tells what happens to images."""

import base64
import binascii
import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from .fields import Matching, Section, setting

WebhookEvent = Literal["image.ready", "image.completed", "image.failed", "image.deleted", "image.expired"]
ALL_EVENTS: tuple[WebhookEvent, ...] = (
    "image.ready",
    "image.completed",
    "image.failed",
    "image.deleted",
    "image.expired",
)
SECRET = re.compile(r"whsec_([A-Za-z0-9+/]+={0,2})")
MIN_KEY_BYTES, MAX_KEY_BYTES = 24, 64  # Standard Webhooks, "Signature scheme"


def _listed(value: object) -> object:
    """One secret, or two separated by a space or as a list."""
    return value.split() if isinstance(value, str) else value


class Webhook(BaseModel):
    """One `[[webhooks]]` table."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    name: Annotated[
        str,
        Matching(r"[a-z0-9][a-z0-9_-]{0,63}", "1 to 64 letters a-z, digits, '_' and '-', the first a letter or digit"),
    ]
    url: Annotated[str, Field(max_length=2048)]
    secret: Annotated[tuple[SecretStr, ...], BeforeValidator(_listed), Field(min_length=1, max_length=2)]
    events: Annotated[tuple[WebhookEvent, ...], Field(min_length=1)] = ALL_EVENTS
    buckets: tuple[str, ...] = ()  # empty: all
    allow_private: bool = False  # http, and addresses of this machine and of private networks

    @field_validator("secret")
    @classmethod
    def _strong(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            found = SECRET.fullmatch(secret.get_secret_value())
            try:
                size = len(base64.b64decode(found[1] + "==")) if found else 0
            except binascii.Error:
                size = 0
            if not MIN_KEY_BYTES <= size <= MAX_KEY_BYTES:
                raise ValueError(f"each secret must be whsec_ and {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes in base64")
        return value

    @model_validator(mode="after")
    def _usable_url(self) -> Self:
        schemes = "https?" if self.allow_private else "https"
        if not re.fullmatch(rf"{schemes}://[^\s/?#@\\]+([/?][^\s\\#]*)?", self.url):
            more = "" if self.allow_private else "; http only with allow_private = true"
            raise ValueError(f"{self.name}: url must be https://HOST/PATH without user name and fragment{more}")
        return self


def _from_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else []
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON list of objects") from None


class Webhooks(Section):
    """Receivers of events: a `[[webhooks]]` table each, instead of this section."""

    endpoints: Annotated[tuple[Webhook, ...], BeforeValidator(_from_text)] = setting(
        (),
        "One table each: name (unique; what waits belongs to it, whatever becomes of url and secret), url, secret (one "
        "or two whsec_… of at least 24 bytes: both sign), events (image.ready, image.completed, image.failed, "
        "image.deleted, image.expired; all), buckets (all), allow_private (false: only https, and no address of this "
        "machine or of a private network). In the environment the list as JSON.",
        env="IMGSVC_WEBHOOKS",
        holds_secrets=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _tables(cls, given: Any) -> Any:
        """`[[webhooks]]` is a list of tables where a section is a table."""
        return {"endpoints": given} if isinstance(given, list | tuple) else given

    @field_validator("endpoints")
    @classmethod
    def _unique(cls, value: tuple[Webhook, ...]) -> tuple[Webhook, ...]:
        names = [one.name for one in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {twice[0]} is used more than once")
        return value
