"""Settings of uploads by address: which hosts the service fetches images from."""

import re

from pydantic import field_validator

from .fields import Section, Texts, setting

HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Fetch(Section):
    allowed_hosts: Texts = setting(
        (),
        'Hosts that images may be fetched from by POST /api/v1/images/fetch: names, "*.example.org" for all names '
        'below one, or "*" for any. Inner addresses are refused in any case. Empty: nothing is fetched.',
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        lower = tuple(name.lower().rstrip(".") for name in value)
        for name in lower:
            if name != "*" and not HOST.fullmatch(name):
                raise ValueError(f"{name!r} must be a host name, *.example.org or *")
        return lower

    def allows(self, host: str) -> bool:
        """`host` without brackets and port."""
        name = host.lower().rstrip(".")
        return any(
            one in ("*", name) or (one.startswith("*.") and name.endswith(one[1:])) for one in self.allowed_hosts
        )
