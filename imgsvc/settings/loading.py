"""Loads values from config.toml, a .env file beside it, and the environment. A later source overrides.

`{NAME}_FILE` names a file that contains the value of `{NAME}`, the usual way to pass secrets to containers.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .fields import SettingInfo, SettingsError

MAX_VALUE_BYTES = 65_536  # of a file that holds a setting's value
PASSWORD = re.compile(r"@|password=", re.IGNORECASE)  # signs of a password in a URL

PREFIX = "IMGSVC_"
NO_SETTINGS = {"IMGSVC_TOKEN"}  # options of commands, which typer reads from the environment
# What Kubernetes and Docker's old links add for each service: a service named imgsvc-server gives IMGSVC_SERVER_PORT.
LINK_NAME = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+")

Names = Mapping[str, str | None]


def given_values(settings: Iterable[SettingInfo], config: Path | None, environ: Names) -> dict[str, Any]:
    """{section: {field: value}} of all sources, unchecked. `config` None: ./config.toml, if there is one.

    Raises SettingsError.
    """
    file = config or Path("config.toml")
    if not os.access(".", os.X_OK):
        raise SettingsError(f"user {os.geteuid()} may not look into the working folder {Path.cwd()}: chown it")
    if config and not config.is_file():
        raise SettingsError(f"--config {config}: there is no such file")
    values = _toml(file)
    settings = tuple(settings)
    for names in (_dotenv(file.parent / ".env"), environ):
        _check_names(names, settings)
        for one in settings:
            text = None if _is_link(one, names) else _text(names, one)
            if text is not None and isinstance(values.get(one.section), list):
                values[one.section] = {}  # the tables of [[webhooks]]
            if text is not None and isinstance(values.setdefault(one.section, {}), dict):
                values[one.section][one.field] = text
    return values


def first_problem(error: ValidationError, settings: Iterable[SettingInfo]) -> str:
    """One line: the setting with its environment name, its value unless that is secret, and what is allowed."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message  # about several sections: the message names them
    section, *rest = (str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"[{section}] {'.'.join(rest)}: there is no such setting" if rest else f"[{section}]: no such section"
    if not rest:
        return f"[{section}]: {message}"
    known = next(one for one in settings if (one.section, one.field) == (section, rest[0]))
    shown = repr(first["input"])
    if known.secret or known.holds_secrets or (known.may_hold_password and PASSWORD.search(shown)):
        shown = "(hidden)"
    return f"[{section}] {'.'.join(rest)} ({known.environment}) = {shown}: {message[0].lower()}{message[1:]}"


def service_links(settings: Iterable[SettingInfo], environ: Names) -> list[str]:
    """Variables that Kubernetes added for a service of a name like ours (`enableServiceLinks`); they are ignored."""
    settings = tuple(settings)
    links = {name for name in environ if name.startswith(PREFIX) and LINK_NAME.fullmatch(name)}
    links -= {one.environment for one in settings}
    return sorted(links | {one.environment for one in settings if _is_link(one, environ)})


def _is_link(setting: SettingInfo, names: Names) -> bool:
    """Whether the variable contains the address of a service link. For a URL setting such as Redis's: a valid URL."""
    return not setting.may_hold_password and bool(LINK_VALUE.fullmatch(names.get(setting.environment) or ""))


def _check_names(names: Names, settings: Iterable[SettingInfo]) -> None:
    """Refuse a misspelt environment name, like a misspelt key in config.toml. Raises SettingsError."""
    known = {name for one in settings for name in (one.environment, f"{one.environment}_FILE")}
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known | NO_SETTINGS and not LINK_NAME.fullmatch(name):
            near = difflib.get_close_matches(name, known, n=1)
            raise SettingsError(f"{name}: there is no such setting" + (f"; {near[0]} is one" if near else ""))


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode()) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} can't be read: {error}") from None


def _dotenv(file: Path) -> Names:
    try:
        if not file.exists():
            return {}
        from dotenv import dotenv_values  # where there is no such file, the start is 5 ms shorter

        return dotenv_values(file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} can't be read: {error}") from None


def _text(names: Names, setting: SettingInfo) -> str | None:
    """The value from one source, or from a file that the source names. Raises SettingsError."""
    name = setting.environment
    text, file = names.get(name), names.get(f"{name}_FILE")
    if not file:
        return text
    label = f"[{setting.section}] {setting.field} ({name}_FILE) = {file!r}"
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
    if not value:  # an empty file of a secret would silently give an insecure default
        raise SettingsError(f"{label}: is empty")
    return value
