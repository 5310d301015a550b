"""config.toml, a .env file beside it, and the environment become one frozen Settings.

A later source overrides an earlier one. Every setting has an environment name: the one in the field's `Env` mark, or
IMGSVC_{SECTION}_{FIELD}. `{NAME}_FILE` names a file that holds the value, as container engines hand over secrets.
config.toml in the repository shows all settings with their units and consequences.
"""

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from ..imaging.recipe import MAX_SIDE, Recipe, Variant

MEGABYTE = 1 << 20
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key of the hash's size or larger
SECRETS = {
    ("storage", "url_signing_key"),
    ("storage", "url_signing_key_previous"),
    ("s3", "secret_access_key"),
    ("s3", "session_token"),
    ("auth", "jwt_secret_key"),
    ("auth", "jwt_secret_key_previous"),
    ("operator", "token"),
}
MAY_HOLD_A_PASSWORD = {("auth", "api_url"), ("auth", "jwks_url"), ("redis", "url"), ("s3", "endpoint_url")}
PASSWORD = re.compile(r"@|password=", re.IGNORECASE)  # how a URL shows that it does
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
WEEK_SECONDS = 604_800  # as long as a presigned URL of S3 can last
MAX_VALUE_BYTES = 65_536  # of a file that holds a setting\'s value
VARIANT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Lifetime = Annotated[int, Field(ge=0, le=86_400)]  # seconds; 0: not kept at all
Quality = Annotated[int, Field(ge=0, le=100)]
Effort = Annotated[int, Field(ge=0, le=6)]
MimeType = Literal["image/jpeg", "image/png", "image/webp"]
Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"
]  # RFC 7518 section 3.1, RFC 8037 section 3.1


class SettingsError(Exception):
    """A setting that can't be used. The message is one line: the setting, the value, what is allowed."""


@dataclass(frozen=True, slots=True)
class Env:
    """The environment name of a setting whose name was in use before this program."""

    name: str


class Retired:
    """Marks a setting that is still understood, has no effect any more, and is not documented."""


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
    http2: Annotated[bool, Retired(), Field(exclude=True)] = False
    keep_alive_seconds: Seconds = 30
    max_header_kb: Annotated[int, Field(ge=1, le=1024)] = 16
    answers_mb: Annotated[float, Field(ge=1, le=65_536)] = 8
    answer_idle_seconds: Seconds = 30
    answer_min_bytes_per_second: Annotated[int, Field(ge=0)] = 1024
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
    backend: Annotated[Literal["local", "s3"], Env("STORAGE_BACKEND")] = "local"
    path: Annotated[Path, Env("STORAGE_PATH")] = Path("data/storage")
    reserve_mb: Annotated[int, Field(ge=0)] = 256
    signed_urls: bool = False
    signed_url_seconds: Annotated[int, Field(ge=1, le=WEEK_SECONDS)] = 3600
    url_signing_key: SecretStr = SecretStr("")
    url_signing_key_previous: SecretStr = SecretStr("")

    @field_validator("url_signing_key", "url_signing_key_previous")
    @classmethod
    def _strong(cls, value: SecretStr) -> SecretStr:
        return _strong_secret(value)


class S3(Section):
    """In use where there is a bucket. Without keys here the usual chain has them: profile, role, web identity."""

    bucket: Annotated[str, Env("AWS_S3_BUCKET_NAME"), Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{1,62})?$")] = ""
    region: Annotated[str, Env("AWS_REGION"), Field(pattern=r"^[A-Za-z0-9-]{1,63}$")] = "us-east-1"
    access_key_id: Annotated[str, Env("AWS_ACCESS_KEY_ID")] = ""
    secret_access_key: Annotated[SecretStr, Env("AWS_SECRET_ACCESS_KEY")] = SecretStr("")
    session_token: Annotated[SecretStr, Env("AWS_SESSION_TOKEN")] = SecretStr("")
    endpoint_url: Annotated[str, Env("AWS_ENDPOINT_URL")] = ""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    encryption: Literal["AES256", "none"] = "AES256"
    presigned_seconds: Annotated[int, Field(ge=1, le=WEEK_SECONDS)] = 3600
    connections: Annotated[int, Field(ge=1, le=256)] = 16
    connect_timeout_seconds: Seconds = 3
    read_timeout_seconds: Seconds = 15
    total_timeout_seconds: Seconds = 60
    attempts: Annotated[int, Field(ge=1, le=20)] = 4

    @field_validator("endpoint_url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            raise ValueError("must be empty or an absolute http(s) URL without a user and a query")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _whole_keys(self) -> Self:
        secret = bool(self.secret_access_key.get_secret_value())
        if bool(self.access_key_id) != secret:
            lacks = "secret_access_key (AWS_SECRET_ACCESS_KEY)" if not secret else "access_key_id (AWS_ACCESS_KEY_ID)"
            raise ValueError(f"{lacks} is missing: the two keys go together")
        return self


class Auth(Section):
    jwt_algorithm: Annotated[Algorithm, Env("JWT_ALGORITHM")] = "HS256"
    jwt_secret_key: Annotated[SecretStr, Env("JWT_SECRET_KEY")] = SecretStr("")
    jwt_secret_key_previous: SecretStr = SecretStr("")
    jwt_public_key: str = ""
    jwks_url: Annotated[str, Env("AUTH_API_JWKS_URL")] = ""
    issuer: Annotated[str, Env("AUTH_API_ISSUER_URL")] = ""
    audience: Annotated[str, Env("AUTH_API_AUDIENCE")] = ""
    leeway_seconds: Annotated[int, Field(ge=0, le=600)] = 0
    permissions: Annotated[Literal["none", "claims", "remote"], Env("AUTH_PERMISSIONS")] = "none"
    api_url: Annotated[str, Env("AUTH_API_URL")] = ""
    api_timeout: Annotated[Seconds, Env("AUTH_API_TIMEOUT")] = 5
    fail_open: Annotated[bool, Env("AUTH_FAIL_OPEN")] = False
    cache_enabled: Annotated[bool, Env("AUTH_CACHE_ENABLED")] = True
    cache_ttl_read: Annotated[Lifetime, Env("AUTH_CACHE_TTL_READ")] = 300
    cache_ttl_write: Annotated[Lifetime, Env("AUTH_CACHE_TTL_WRITE")] = 60
    cache_ttl_admin: Annotated[Lifetime, Env("AUTH_CACHE_TTL_ADMIN")] = 30
    cache_ttl_denied: Annotated[Lifetime, Env("AUTH_CACHE_TTL_DENIED")] = 120
    breaker_threshold: Annotated[int, Env("CIRCUIT_BREAKER_THRESHOLD"), Field(ge=1)] = 5
    breaker_timeout: Annotated[Seconds, Env("CIRCUIT_BREAKER_TIMEOUT")] = 60

    @field_validator("jwt_secret_key", "jwt_secret_key_previous")
    @classmethod
    def _strong(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value().lstrip().startswith("-----BEGIN"):
            raise ValueError("is a PEM key, and what is public is no secret: see jwt_public_key and jwt_algorithm")
        return _strong_secret(value)

    @field_validator("jwks_url")
    @classmethod
    def _asked_safely(cls, value: str) -> str:
        """Whoever can change the keys on their way can make every token."""
        url = _http_url(value) if value else None
        if url and (url.username or url.password):
            raise ValueError("must not hold a user name or password: a key set is public")
        if url and url.scheme != "https" and url.hostname not in LOOPBACK_NAMES:
            raise ValueError("must be https, unless it is asked on this machine (localhost, 127.0.0.1, [::1])")
        return value

    @field_validator("api_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not (re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value) and _names_a_host(value)):
            raise ValueError("must be empty or an absolute http(s) URL without a query")
        return value.rstrip("/")

    @property
    def own_keys(self) -> bool:
        """Whether tokens are signed with a secret that this service has, so that it can make some."""
        return self.jwt_algorithm.startswith("HS")

    @model_validator(mode="after")
    def _keys_go_with_the_algorithm(self) -> Self:
        algorithm = f"jwt_algorithm (JWT_ALGORITHM) = {self.jwt_algorithm!r}"
        given = [name for name in ("jwt_public_key", "jwks_url") if getattr(self, name)]
        if self.own_keys and given:
            raise ValueError(f"{algorithm} uses a secret: {given[0]} needs an algorithm with a public key, like RS256")
        if not self.own_keys and not given:
            raise ValueError(
                f"{algorithm} needs jwt_public_key (IMGSVC_AUTH_JWT_PUBLIC_KEY) or jwks_url (AUTH_API_JWKS_URL)"
            )
        if len(given) > 1:
            raise ValueError("jwt_public_key and jwks_url exclude each other: give one of them")
        if self.permissions == "remote" and not self.api_url:
            raise ValueError("permissions (AUTH_PERMISSIONS) = 'remote' needs api_url (AUTH_API_URL)")
        return self


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
    max_open_per_user: Annotated[int, Field(ge=1)] = 64
    max_open: Annotated[int, Field(ge=1)] = 512

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


class Redis(Section):
    url: Annotated[SecretStr, Env("REDIS_URL")] = SecretStr("")  # it may hold a password
    timeout_ms: Annotated[float, Field(gt=0, le=10_000)] = 50
    prefix: str = "imgsvc:"

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        if value and not re.match(r"(rediss?|unix)://", value.get_secret_value()):
            raise ValueError("must be empty or begin with redis://, rediss:// or unix://")
        return value


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
    deleted_rows_days: Annotated[float, Field(ge=0, le=36_500)] = 365


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


class Settings(BaseModel):
    """All settings, checked. Frozen: a changed setting takes effect at the next start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: Service = Service()
    server: Server = Server()
    database: Database = Database()
    storage: Storage = Storage()
    s3: S3 = S3()
    auth: Auth = Auth()
    operator: Operator = Operator()
    uploads: Uploads = Uploads()
    rate_limit: RateLimit = RateLimit()
    redis: Redis = Redis()
    images: Images = Images()
    workers: Workers = Workers()
    jobs: Jobs = Jobs()
    log: Log = Log()

    @model_validator(mode="after")
    def _bucket_for_s3(self) -> Self:
        if self.storage.backend == "s3" and not self.s3.bucket:
            raise ValueError("[s3] bucket (AWS_S3_BUCKET_NAME) = '': is needed where [storage] backend is s3")
        return self

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
            for section, field, name in environment_names(retired=True):
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


def environment_names(*, retired: bool = False) -> Iterator[tuple[str, str, str]]:
    """(section, field, environment name) of every setting; with `retired` of those without an effect too."""
    for section, info in Settings.model_fields.items():
        for field, inner in _section_fields(info):
            if retired or not any(isinstance(mark, Retired) for mark in inner.metadata):
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
        return tomllib.loads(file.read_bytes().decode()) if file.is_file() else {}
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
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message  # of several sections: it names them itself
    section, *rest = (str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"[{section}] {'.'.join(rest)}: there is no such setting" if rest else f"[{section}]: no such section"
    if not rest:
        return f"[{section}]: {message}"
    names = {(one, field): name for one, field, name in environment_names(retired=True)}
    name = names.get((section, rest[0]), "")
    shown = repr(first["input"])
    if (section, rest[0]) in SECRETS or ((section, rest[0]) in MAY_HOLD_A_PASSWORD and PASSWORD.search(shown)):
        shown = "(hidden)"
    return f"[{section}] {'.'.join(rest)} ({name}) = {shown}: {message[0].lower()}{message[1:]}"


def without_credentials(url: str) -> str:
    """The URL with no user name and password in it, for people to see."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)[^/?#]*@", r"\1", url, flags=re.IGNORECASE)


def _names_a_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0  # reading a port that is none raises
    except ValueError:
        return False


def _strong_secret(value: SecretStr) -> SecretStr:
    size = len(value.get_secret_value().encode())
    if 0 < size < MIN_SECRET_BYTES:
        raise ValueError(f"has {size} bytes; at least {MIN_SECRET_BYTES} are needed")
    return value


def _http_url(text: str) -> SplitResult:
    """Its parts. Raises ValueError."""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.fragment or re.search(r"\s", text):
        raise ValueError("must be empty or an absolute http(s) URL")
    _ = url.port  # its ValueError names the value
    return url


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
