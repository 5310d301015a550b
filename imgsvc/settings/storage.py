"""Settings of storage: the database, the stored variants, and the S3 bucket."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import SecretStr, field_validator, model_validator

from .fields import STRONG, WEEK_SECONDS, Seconds, Section, setting

SigningKey = Annotated[SecretStr, STRONG]


class Database(Section):
    path: Path = setting(
        Path("data/imgsvc.db"),
        "SQLite database. Its folder is the data folder, which also holds the lock, the secrets and the uploads that "
        "wait. It must be on a local disk, never on a network share.",
        env="DATABASE_PATH",
    )

    @field_validator("path")
    @classmethod
    def _file(cls, value: Path) -> Path:
        if not value.name or os.path.isdir(value):  # noqa: PTH112, false too where this user may not look
            raise ValueError("must be the path of a file")
        return value


class Storage(Section):
    backend: Literal["local", "s3"] = setting(
        "local",
        'Where new variants are stored: "local" or "s3"; each image stays where it is.',
        env="STORAGE_BACKEND",
    )
    path: Path = setting(Path("data/storage"), "Folder of the local backend.", env="STORAGE_PATH")
    group: str = setting(
        "",
        "Group that may read the stored variants and nothing else: that of a proxy that sends them itself ([server] "
        "accel_redirect). The service's user must be in it. Empty: only the service reads them.",
    )
    reserve_mb: int = setting(
        256, "With less free space than this in the data folder, uploads are refused with 507.", unit="MB", ge=0
    )
    signed_urls: bool = setting(
        False,
        "true: images can be viewed only through signed URLs that expire, which only tokens of the uploader's "
        "organisation get.",
    )
    signed_url_seconds: int = setting(
        3600,
        "Lifetime of a signed URL; up to a minute is added, so that a browser gets the same URL again and uses its "
        "cache.",
        unit="seconds",
        ge=1,
        le=WEEK_SECONDS,
    )
    url_signing_key: SigningKey = setting(
        SecretStr(""),
        "Key that signs URLs, at least 32 bytes. Empty: a key is created in the data folder (url_key, mode 0600).",
    )
    url_signing_key_previous: SigningKey = setting(
        SecretStr(""), "The previous key: URLs signed with it stay valid until they expire."
    )


class S3(Section):
    """Used when a bucket is set, even if only for images that were stored there before."""

    bucket: str = setting(
        "",
        "Name of the bucket, which must exist already.",
        env="AWS_S3_BUCKET_NAME",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{1,62})?$",
    )
    region: str = setting(
        "us-east-1",
        "Region of the bucket; many compatible stores ignore it.",
        env="AWS_REGION",
        pattern=r"^[A-Za-z0-9-]{1,63}$",
    )
    access_key_id: str = setting(
        "",
        "Access key. Empty: keys come from the profile (AWS_PROFILE), web identity, or the role of the container or "
        "machine, like every AWS tool.",
        env="AWS_ACCESS_KEY_ID",
    )
    secret_access_key: SecretStr = setting(SecretStr(""), "The secret of access_key_id.", env="AWS_SECRET_ACCESS_KEY")
    session_token: SecretStr = setting(
        SecretStr(""), "Session token, only with temporary keys.", env="AWS_SESSION_TOKEN"
    )
    endpoint_url: str = setting(
        "",
        "Address of a compatible store; empty: AWS. Browsers must reach it too, unless public_endpoint_url is set.",
        env="AWS_ENDPOINT_URL",
        may_hold_password=True,
    )
    public_endpoint_url: str = setting(
        "",
        "Address of the same store for browsers, where endpoint_url is an inner one such as http://minio:9000. URLs "
        "are signed for it and nothing is sent to it. Empty: endpoint_url.",
        may_hold_password=True,
    )
    addressing: Literal["auto", "path", "virtual"] = setting(
        "auto",
        'How the bucket is addressed: "path" (host/bucket/key), "virtual" (bucket.host/key), or "auto": path with an '
        "endpoint_url, virtual with AWS.",
    )
    encryption: Literal["AES256", "none"] = setting(
        "AES256", 'Encryption at rest, requested for each object; "none" for a store without it.'
    )
    presigned_seconds: int = setting(
        3600, "Lifetime of a presigned URL, at most a week.", unit="seconds", ge=1, le=WEEK_SECONDS
    )
    connections: int = setting(
        16, "Connections to the store at the same time, at most.", unit="connections", ge=1, le=256
    )
    connect_timeout_seconds: Seconds = setting(3, "Time to connect to the store.")
    read_timeout_seconds: Seconds = setting(15, "Time without a byte from the store.")
    total_timeout_seconds: Seconds = setting(
        60, "Time for one request with all its attempts; a large file gets one second more for each 64 KiB."
    )
    attempts: int = setting(
        4, "Attempts of a request that failed for a reason that may pass.", unit="attempts", ge=1, le=20
    )

    @field_validator("endpoint_url", "public_endpoint_url")
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
