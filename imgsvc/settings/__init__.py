"""All settings, as one frozen and checked object.

Each section is a class in the file that `Settings` imports it from; each of its fields declares one setting with its
default, unit, check and description. config.toml and docs/reference/settings.md are made from them.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from .auth import Auth, Operator
from .fetch import Fetch
from .fields import SettingInfo, SettingsError, declared, unchecked
from .jobs import Images, Jobs
from .loading import first_problem, given_values, service_links
from .server import Log, Server, Service
from .storage import S3, Database, Storage
from .uploads import ByteQuotas, RateLimit, Redis, Uploads
from .webhooks import Webhooks
from .workers import Workers

__all__ = ["SettingInfo", "Settings", "SettingsError", "all_settings", "environment_names", "ignored_service_links"]


class Settings(BaseModel):
    """All settings, checked. Frozen: a changed setting takes effect at the next start."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    service: Service = unchecked(Service)
    server: Server = unchecked(Server)
    database: Database = unchecked(Database)
    storage: Storage = unchecked(Storage)
    s3: S3 = unchecked(S3)
    auth: Auth = unchecked(Auth)
    operator: Operator = unchecked(Operator)
    uploads: Uploads = unchecked(Uploads)
    rate_limit: RateLimit = unchecked(RateLimit)
    quota: ByteQuotas = unchecked(ByteQuotas)
    redis: Redis = unchecked(Redis)
    images: Images = unchecked(Images)
    workers: Workers = unchecked(Workers)
    jobs: Jobs = unchecked(Jobs)
    webhooks: Webhooks = unchecked(Webhooks)
    fetch: Fetch = unchecked(Fetch)
    log: Log = unchecked(Log)

    @model_validator(mode="after")
    def _bucket_for_s3(self) -> Self:
        if self.storage.backend == "s3" and not self.s3.bucket:
            raise ValueError("[s3] bucket (AWS_S3_BUCKET_NAME) = '': is needed where [storage] backend is s3")
        return self

    @model_validator(mode="after")
    def _tokens_fit_into_headers(self) -> Self:
        token, header = self.auth.max_token_kb, self.server.max_header_kb
        if token > header and token != Auth().max_token_kb:  # a lower header limit alone lowers the default silently
            raise ValueError(
                f"[auth] max_token_kb (IMGSVC_AUTH_MAX_TOKEN_KB) = {token}: a token travels in the headers, and "
                f"[server] max_header_kb (IMGSVC_SERVER_MAX_HEADER_KB) is {header}"
            )
        return self

    @model_validator(mode="after")
    def _address_for_sign_on(self) -> Self:
        if self.operator.oidc_issuer and not self.service.public_url:
            raise ValueError(
                "[service] public_url (PUBLIC_URL) = '': is needed where [operator] oidc_issuer is set, since the "
                "provider sends people back to it"
            )
        return self

    @model_validator(mode="after")
    def _machines_reach_the_service(self) -> Self:
        needs = self.workers.engine == "dask" and self.server.unix_path
        if needs and not (self.workers.service_url or self.service.public_url):
            raise ValueError(
                "[workers] service_url (IMGSVC_WORKERS_SERVICE_URL) = '': is needed where engine is dask and [server] "
                "host is a Unix socket, which other machines can't reach"
            )
        return self

    @property
    def max_token_bytes(self) -> int:
        """The longest accepted token in bytes: as configured, and at most the limit of all headers."""
        return min(self.auth.max_token_kb, self.server.max_header_kb) * 1024

    @classmethod
    def load(cls, config: Path | None = None, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read config.toml (`config`, or ./config.toml if there is one), its .env and the environment.

        Raises SettingsError.
        """
        values = given_values(all_settings(), config, os.environ if environ is None else environ)
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError(first_problem(error, all_settings())) from None

    @property
    def data(self) -> Path:
        """The data folder: it contains the database, the lock, the secrets and the staged uploads."""
        return self.database.path.parent


@cache
def all_settings() -> tuple[SettingInfo, ...]:
    """Every setting in the order of config.toml, with the retired ones."""
    return tuple(declared(Settings))


def ignored_service_links() -> list[str]:
    """Variables in this process's environment that Kubernetes added, and that are not settings."""
    return service_links(all_settings(), os.environ)


def environment_names() -> Iterator[tuple[str, str, str]]:
    """(section, field, environment name) of every setting that has an effect."""
    for one in all_settings():
        if not one.retired:
            yield one.section, one.field, one.environment
