"""Settings of the process: its name and address, its connections, its log."""

import ipaddress
import os
import re
from typing import Literal, Self

from pydantic import field_validator, model_validator

from .fields import AbsoluteUrl, Seconds, Section, Texts, retired, setting

UNIX = "unix:"
MAX_UNIX_PATH = 107  # bytes (unix(7))


class Service(Section):
    name: str = setting("imgsvc", "Name of the service in responses.", env="SERVICE_NAME")
    environment: str = setting("production", "A label for the log and the metrics.", env="ENVIRONMENT")
    public_url: AbsoluteUrl = setting(
        "",
        'Prefix of every URL in responses: "https://img.example.org", with a path prefix if there is one. Empty: URLs '
        "are absolute paths.",
        env="PUBLIC_URL",
    )


class Server(Section):
    host: str = setting(
        "127.0.0.1",
        'Address to listen on; "0.0.0.0" for all IPv4 interfaces; "unix:/run/imgsvc/http.sock" for a proxy on this '
        "machine, whose X-Forwarded-* headers are used then.",
        min_length=1,
    )
    unix_mode: str = setting(
        "660", "Mode of the Unix socket: the proxy's user must be able to write to it.", pattern=r"^[0-7]{3}$"
    )
    port: int = setting(8000, "Port to listen on; 0 picks a free one.", ge=0, le=65_535)
    certfile: str = setting("", "TLS certificate chain (PEM); needs keyfile too.")
    keyfile: str = setting("", "Private key of the certificate (PEM).")
    http2: bool = retired(False)
    keep_alive_seconds: Seconds = setting(
        30, "An idle connection is closed after this time, and so is one whose request headers do not arrive."
    )
    max_header_kb: int = setting(
        64, "Larger request headers are refused with 431, however they arrive.", unit="KB", ge=1, le=1024
    )
    answers_mb: float = setting(
        8,
        "Memory for responses that clients have not read yet, all together. A client that reads nothing is dropped in "
        "favour of others; beyond that they get 503.",
        unit="MB",
        ge=1,
        le=65_536,
    )
    cache_mb: float = setting(
        64,
        "Memory for what is read often, all together: the rows of completed images, and variants of at most 64 KB. "
        "0: none, and each read asks the database and the storage.",
        unit="MB",
        ge=0,
        le=65_536,
    )
    answer_idle_seconds: Seconds = setting(
        30, "A client that reads nothing of its response for this long is dropped; one that waits for news is not."
    )
    answer_min_bytes_per_second: int = setting(
        1024,
        "A client that reads less than this over answer_idle_seconds is dropped too; 0: any rate is accepted.",
        unit="bytes per second",
        ge=0,
    )
    graceful_seconds: Seconds = setting(
        4, "When stopping, requests in progress may take this long; then they are aborted."
    )
    allowed_hosts: Texts = setting(
        (),
        "Host names this service answers for. Empty: loopback names and the host of public_url when host is a "
        'loopback address, otherwise any name; "*": any name.',
    )
    cors_origins: Texts = setting((), "Origins whose pages may call the API; empty: none.")
    trusted_proxies: Texts = setting((), "Networks (CIDR) whose X-Forwarded-* headers are used.")
    accel_redirect: str = setting(
        "",
        'Internal location of the proxy, such as "/protected/": the service checks each request and sends the headers, '
        "and the proxy sends the bytes of local variants (X-Accel-Redirect). Only for requests from trusted_proxies or "
        "through the Unix socket. Empty: the service sends the bytes.",
        pattern=r"^(/[A-Za-z0-9._~-]+)*/$|^$",
    )

    @field_validator("host")
    @classmethod
    def _whole_path(cls, value: str) -> str:
        path = value.removeprefix(UNIX)
        if path != value and not (path.startswith("/") and len(os.fsencode(path)) <= MAX_UNIX_PATH):
            raise ValueError(f"must be {UNIX} and an absolute path of at most {MAX_UNIX_PATH} bytes")
        return value

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
        if self.unix_path and self.certfile:
            raise ValueError(f"host = {self.host!r}: a Unix socket has no TLS, which is for the proxy before it")
        return self

    @model_validator(mode="after")
    def _a_proxy_to_send(self) -> Self:
        if self.accel_redirect and not (self.trusted_proxies or self.unix_path):
            raise ValueError("accel_redirect is for a proxy: trusted_proxies must name it")
        return self

    @property
    def unix_path(self) -> str:
        """The path of the Unix socket to listen on; empty for an address and port."""
        return self.host.removeprefix(UNIX) if self.host.startswith(UNIX) else ""


class Log(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = setting(
        "INFO", "Events below this level are not logged: DEBUG, INFO, WARNING or ERROR.", env="LOG_LEVEL"
    )
    json_lines: Literal["auto", "true", "false"] = setting(
        "auto",
        "Log lines in JSON: true, false, or auto (JSON unless a terminal is attached).",
        env="LOG_JSON",
    )

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
