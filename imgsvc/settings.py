"""config.toml, a .env file beside it, and the environment become one frozen Settings.

A later source overrides an earlier one. Every setting has an environment name: the one in the field's `Env` mark, or
IMGSVC_{SECTION}_{FIELD}. `{NAME}_FILE` names a file that holds the value, as container engines hand over secrets.
config.toml in the repository shows all settings with their units and consequences.
"""

import ipaddress
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from .imaging.recipe import MAX_SIDE, Recipe, Variant

MEGABYTE = 1 << 20
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key of the hash's size or larger
SECRETS = {("auth", "jwt_secret_key"), ("operator", "token")}
MAX_VALUE_BYTES = 65_536  # of a file that holds a setting's value
VARIANT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Quality = Annotated[int, Field(ge=0, le=100)]
Effort = Annotated[int, Field(ge=0, le=6)]
MimeType = Literal["image/jpeg", "image/png", "image/webp"]


class SettingsError(Exception):
    """A setting that can't be used. The message is one line: the setting, the value, what is allowed."""


@dataclass(frozen=True, slots=True)
class Env:
    """The environment name of a setting whose name was in use before this program."""

    name: str


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Service(Section):
    name: Annotated[str, Env("SERVICE_NAME")] = "imgsvc"
    environment: Annotated[str, Env("ENVIRONMENT")] = "production"
    public_url: Annotated[str, Env("PUBLIC_URL")] = ""

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
            raise ValueError("must be empty or an absolute http(s) URL without a query")
        return value.rstrip("/")


class Server(Section):
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Port = 8000
    certfile: str = ""
    keyfile: str = ""
    http2: bool = True
    keep_alive_seconds: Seconds = 30
    max_header_kb: Annotated[int, Field(ge=1, le=1024)] = 16
    graceful_seconds: Seconds = 4
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()

    @field_validator("allowed_hosts", "cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return _list_from_text(value) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.fullmatch(r"https?://[^\s/?#]+", origin):
                raise ValueError(f"{origin!r} must be an origin like https://app.example.org, or '*'")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)  # its ValueError names the value
        return value

    @model_validator(mode="after")
    def _both_tls_files(self) -> Self:
        if bool(self.certfile) != bool(self.keyfile):
            raise ValueError("certfile and keyfile go together")
        return self


class Database(Section):
    path: Annotated[Path, Env("DATABASE_PATH")] = Path("data/imgsvc.db")

    @field_validator("path")
    @classmethod
    def _file(cls, value: Path) -> Path:
        if not value.name or os.path.isdir(value):  # noqa: PTH112, false too where this user may not look
            raise ValueError("must be the path of a file")
        return value


class Storage(Section):
    backend: Annotated[Literal["local"], Env("STORAGE_BACKEND")] = "local"
    path: Annotated[Path, Env("STORAGE_PATH")] = Path("data/storage")
    reserve_mb: Annotated[int, Field(ge=0)] = 256


class Auth(Section):
    jwt_secret_key: Annotated[SecretStr, Env("JWT_SECRET_KEY")] = SecretStr("")
    jwt_algorithm: Annotated[Literal["HS256", "HS384", "HS512"], Env("JWT_ALGORITHM")] = "HS256"

    @field_validator("jwt_secret_key")
    @classmethod
    def _strong(cls, value: SecretStr) -> SecretStr:
        return _strong_secret(value)


class Operator(Section):
    token: Annotated[SecretStr, Env("OPERATOR_TOKEN")] = SecretStr("")
    public: Annotated[bool, Env("OPERATOR_PUBLIC")] = False
    session_hours: Annotated[float, Field(gt=0, le=8760)] = 12

    @field_validator("token")
    @classmethod
    def _strong(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[!-~]*", value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces, since it travels in a header")
        return _strong_secret(value)


class Uploads(Section):
    max_size_mb: Annotated[float, Env("MAX_UPLOAD_SIZE_MB"), Field(gt=0, le=4096)] = 10
    allowed_mime_types: Annotated[tuple[MimeType, ...], Env("ALLOWED_MIME_TYPES"), Field(min_length=1)] = (
        "image/jpeg",
        "image/png",
        "image/webp",
    )
    idle_timeout_seconds: Seconds = 15
    min_bytes_per_second: Annotated[int, Field(ge=0)] = 1024

    @field_validator("allowed_mime_types", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return _list_from_text(value) if isinstance(value, str) else value

    @cached_property
    def max_bytes(self) -> int:
        return int(self.max_size_mb * MEGABYTE)


class RateLimit(Section):
    max_uploads: Annotated[int, Env("RATE_LIMIT_MAX_UPLOADS"), Field(ge=1)] = 50
    window_minutes: Annotated[float, Env("RATE_LIMIT_WINDOW_MINUTES"), Field(gt=0, le=525_600)] = 60


class Images(Section):
    sizes: Annotated[dict[str, Annotated[int, Field(ge=1, le=MAX_SIDE)]], Env("IMAGE_SIZES")] = {
        "thumbnail": 150,
        "medium": 600,
        "large": 1200,
        "original": 4096,
    }
    webp_quality: Annotated[Quality, Env("WEBP_QUALITY")] = 85
    webp_quality_by_size: dict[str, Quality] = {}
    webp_effort: Effort = 4
    webp_effort_by_size: dict[str, Effort] = {"original": 2}
    max_pixels: Annotated[int, Field(ge=1, le=500_000_000)] = 50_000_000
    max_frames: Annotated[int, Field(ge=1)] = 1000

    @field_validator("sizes", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return _pairs_from_text(value) if isinstance(value, str) else value

    @field_validator("webp_quality_by_size", "webp_effort_by_size", mode="before")
    @classmethod
    def _json(cls, value: object) -> object:
        return _pairs_from_text(value) if isinstance(value, str) else value

    @field_validator("sizes")
    @classmethod
    def _named(cls, value: dict[str, int]) -> dict[str, int]:
        if not value:
            raise ValueError("names no variant")
        for name in value:
            if not VARIANT_NAME.fullmatch(name):
                raise ValueError(f"the variant name {name!r} must match {VARIANT_NAME.pattern}")
        return value

    @cached_property
    def recipe(self) -> Recipe:
        variants = (
            Variant(
                name,
                side,
                self.webp_quality_by_size.get(name, self.webp_quality),
                self.webp_effort_by_size.get(name, self.webp_effort),
            )
            for name, side in self.sizes.items()
        )
        return Recipe(tuple(variants), self.max_pixels, self.max_frames)


class Workers(Section):
    count: Annotated[int, Field(ge=0, le=256)] = 0
    memory_mb: Annotated[int, Field(ge=0)] = 0
    time_limit_seconds: Seconds = 30
    time_limit_seconds_per_megapixel: Annotated[float, Field(ge=0, le=3600)] = 2
    jobs_per_process: Annotated[int, Field(ge=1)] = 500
    grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 5


class Jobs(Section):
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    retry_delay_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60
    lock_wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 30
    max_waiting: Annotated[int, Field(ge=1)] = 10_000
    failed_source_hours: Annotated[float, Field(ge=0, le=87_600)] = 24
    events_days: Annotated[float, Field(ge=1, le=36_500)] = 90


class Log(Section):
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Env("LOG_LEVEL")] = "INFO"
    json_lines: Annotated[Literal["auto", "true", "false"], Env("LOG_JSON")] = "auto"

    @field_validator("level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("json_lines", mode="before")
    @classmethod
    def _flag(cls, value: object) -> object:
        flags = {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}
        text = str(value).lower()
        return flags.get(text, text)


class Settings(BaseSettings):
    """All settings, checked. Frozen: a changed setting takes effect at the next start."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    service: Service = Service()
    server: Server = Server()
    database: Database = Database()
    storage: Storage = Storage()
    auth: Auth = Auth()
    operator: Operator = Operator()
    uploads: Uploads = Uploads()
    rate_limit: RateLimit = RateLimit()
    images: Images = Images()
    workers: Workers = Workers()
    jobs: Jobs = Jobs()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # load() says which files there are; constructing Settings() reads none

    @classmethod
    def load(cls, config: Path | None = None, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read config.toml (`config`, or ./config.toml if there is one), its .env and the environment.

        Raises SettingsError.
        """
        file = config or Path("config.toml")
        if not os.access(".", os.X_OK):
            raise SettingsError(f"user {os.geteuid()} may not look into the working folder {Path.cwd()}: chown it")
        if config and not config.is_file():
            raise SettingsError(f"--config {config}: there is no such file")
        values = _toml(file)
        for names in (_dotenv(file.parent / ".env"), os.environ if environ is None else environ):
            for section, field, name in environment_names():
                text = _given(names, name, f"[{section}] {field}")
                if text is not None and isinstance(values.setdefault(section, {}), dict):
                    values[section][field] = text
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError(_first_problem(error)) from None

    @property
    def data(self) -> Path:
        """The data folder: where the database is, and with it the lock, the secrets and what is staged."""
        return self.database.path.parent


def environment_names() -> Iterator[tuple[str, str, str]]:
    """(section, field, environment name) of every setting."""
    for section, info in Settings.model_fields.items():
        for field, inner in _section_fields(info):
            yield section, field, _environment_name(section, field, inner)


def _section_fields(info: FieldInfo) -> Iterator[tuple[str, FieldInfo]]:
    section = info.annotation
    assert isinstance(section, type) and issubclass(section, Section)
    yield from section.model_fields.items()


def _environment_name(section: str, field: str, info: FieldInfo) -> str:
    named = [mark.name for mark in info.metadata if isinstance(mark, Env)]
    return named[0] if named else f"IMGSVC_{section}_{field}".upper()


def _toml(file: Path) -> dict[str, Any]:
    try:
        return dict(TomlConfigSettingsSource(Settings, file)()) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} can't be read: {error}") from None


def _dotenv(file: Path) -> Mapping[str, str | None]:
    try:
        return dotenv_values(file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} can't be read: {error}") from None


def _given(names: Mapping[str, str | None], name: str, setting: str) -> str | None:
    """What `name` is set to, or what stands in the file that `{name}_FILE` names. Raises SettingsError."""
    text, file = names.get(name), names.get(f"{name}_FILE")
    if not file:
        return text
    label = f"{setting} ({name}_FILE) = {file!r}"
    if text is not None:
        raise SettingsError(f"{label}: {name} is set too; give one of them")
    try:
        with Path(file).open("rb") as stream:
            value = stream.read(MAX_VALUE_BYTES + 1).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{label}: can't be read: {reason}") from None
    if len(value) > MAX_VALUE_BYTES:
        raise SettingsError(f"{label}: is larger than {MAX_VALUE_BYTES} bytes")
    value = re.sub(r"\r?\n\Z", "", value)
    if not value:  # a secret that was not filled in must not end as one that nobody chose
        raise SettingsError(f"{label}: is empty")
    return value


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    section, *rest = (str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"[{section}] {'.'.join(rest)}: there is no such setting" if rest else f"[{section}]: no such section"
    if not rest:
        return f"[{section}]: {message}"
    names = {(one, field): name for one, field, name in environment_names()}
    name = names.get((section, rest[0]), "")
    shown = "(hidden)" if (section, rest[0]) in SECRETS else repr(first["input"])
    return f"[{section}] {'.'.join(rest)} ({name}) = {shown}: {message[0].lower()}{message[1:]}"


def _strong_secret(value: SecretStr) -> SecretStr:
    size = len(value.get_secret_value().encode())
    if 0 < size < MIN_SECRET_BYTES:
        raise ValueError(f"has {size} bytes; at least {MIN_SECRET_BYTES} are needed")
    return value


def _list_from_text(text: str) -> object:
    if text.lstrip().startswith("["):
        return _json(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs_from_text(text: str) -> object:
    """A JSON object, or `name=1,other=2` (`:` works too)."""
    if text.lstrip().startswith("{"):
        return _json(text)
    pairs = [re.split(r"[=:]", part, maxsplit=1) for part in text.split(",") if part.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("must be a JSON object or a list like thumbnail=150,medium=600")
    return {name.strip(): number.strip() for name, number in pairs}


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None
