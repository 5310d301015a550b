"""Settings of the processes that render, on this machine and on others."""

import re
from typing import Literal, Self

from pydantic import field_validator, model_validator

from .fields import AbsoluteUrl, Seconds, Section, setting

SCHEDULER = re.compile(r"(tls|tcp)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


class Workers(Section):
    count: int = setting(
        0,
        "Render processes; one more makes previews. 0: one per processor, fewer where a quota (docker's --cpus, "
        "CPUQuota=) or memory_mb allows less.",
        unit="processes",
        ge=0,
        le=256,
    )
    memory_mb: int = setting(
        0,
        "Memory of all worker processes together; jobs are started by the memory that they are estimated to need. 0: "
        "half of this machine, or what the limit of a container or unit leaves beside 160 MB.",
        unit="MB",
        ge=0,
    )
    time_limit_seconds: Seconds = setting(
        30, "A render that takes longer than this, plus the time for its size, is killed."
    )
    time_limit_seconds_per_megapixel: float = setting(
        2, "Time added for each megapixel.", unit="seconds per megapixel", ge=0, le=3600
    )
    jobs_per_process: int = setting(500, "After this many jobs a worker is replaced by a fresh one.", unit="jobs", ge=1)
    large_pages: bool = setting(
        True,
        "Workers ask for memory in pages of 2 MB, which takes less processor time for a picture. false: for a virtual "
        "machine that returns such pages to its host (free page reporting), which may then stop it for tens of "
        "milliseconds, and with it the answers to reads.",
    )
    cage: Literal["require", "best", "off"] = setting(
        "best",
        "Each picture's process may only read its picture and write its variants. require: a worker starts only where "
        "Landlock and seccomp can both be put in force; best: a worker starts with what this system offers; off: a "
        "decoder that a picture has taken over has the rights of this service.",
    )
    grace_seconds: float = setting(
        5, "When stopping, running renders may finish within this time.", unit="seconds", ge=0, le=3600
    )
    engine: Literal["local", "dask"] = setting(
        "local",
        "local: pictures are rendered on this machine. dask: also by the workers of a Dask cluster, which `imgsvc "
        "worker` starts on other machines; needs imgsvc[dask].",
    )
    scheduler: str = setting(
        "", 'Address of the cluster\'s scheduler: "tls://scheduler.example.org:8786".', may_hold_password=True
    )
    ca_file: str = setting(
        "", "Certificate (PEM) of the authority made for this cluster alone.", env="IMGSVC_WORKERS_CAFILE"
    )
    certfile: str = setting("", "This machine's certificate (PEM), signed by that authority.")
    keyfile: str = setting("", "Private key of the certificate (PEM).")
    insecure: bool = setting(
        False,
        "true: the scheduler may be at tcp://, without any certificate. Anyone who can reach it can then run code in "
        "every worker and see every picture in flight.",
    )
    local_renders: int = setting(
        1,
        "With engine = dask: render processes on this machine, which continue while the cluster is away.",
        unit="processes",
        ge=0,
        le=256,
    )
    local_preview: bool = setting(True, "With engine = dask: previews are made on this machine. false: by the cluster.")
    service_url: AbsoluteUrl = setting(
        "",
        'With engine = dask: address at which render machines reach this service: "http://10.0.0.2:8000". Empty: '
        "public_url, else the address that it listens on.",
    )

    @field_validator("scheduler")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value and not SCHEDULER.fullmatch(value):
            raise ValueError("must be tls://HOST:PORT")
        return value

    @model_validator(mode="after")
    def _a_scheduler(self) -> Self:
        if self.engine == "dask" and not self.scheduler:
            raise ValueError("scheduler (IMGSVC_WORKERS_SCHEDULER) = '': is needed where engine is dask")
        return self

    @model_validator(mode="after")
    def _certificates(self) -> Self:
        """Loopback is no exception: other users of the machine reach it too."""
        if not self.scheduler:
            return self
        if self.scheduler.startswith("tcp:"):
            if not self.insecure:
                raise ValueError(
                    f"scheduler (IMGSVC_WORKERS_SCHEDULER) = {self.scheduler!r}: only tls:// is accepted; insecure "
                    "(IMGSVC_WORKERS_INSECURE) = true accepts tcp://, which lets in anyone who can reach it"
                )
        elif missing := [name for name in ("ca_file", "certfile", "keyfile") if not getattr(self, name)]:
            name = missing[0].upper().replace("_", "")
            raise ValueError(f"{missing[0]} (IMGSVC_WORKERS_{name}) = '': is needed for {self.scheduler}")
        return self
