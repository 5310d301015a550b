"""What the generated pages are made of, read from the program. All imports of the program stand here, at the top."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import typer.main
import yaml

from imgsvc.cli import main
from imgsvc.http.openapi.description import TAGS as TAGS
from imgsvc.http.openapi.document import build
from imgsvc.http.openapi.operations import EVERYWHERE as EVERYWHERE
from imgsvc.http.wire.error_codes import CODES as CODES
from imgsvc.http.wire.error_codes import limit_of as limit_under
from imgsvc.jobs.retry import JOB_CODES as JOB_CODES
from imgsvc.service.routes import ROUTES as ROUTES
from imgsvc.settings import Settings, environment_names
from imgsvc.settings.storage import Storage
from imgsvc.telemetry.metrics import Metrics

ALERTS = "telemetry/alerts.yml"  # in the package
ROOT = Path(__file__).parent.parent
BACKENDS = ("local", "s3")
Json = dict[str, Any]


def document(*, private: bool = False) -> Json:
    """The OpenAPI document of the default settings; `private`: where reading is private."""
    return build(Settings(storage=Storage(signed_urls=private)), ROUTES)


def limit_of(code: str) -> str | None:
    return limit_under(code, Settings())


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    words: str


@dataclass(frozen=True, slots=True)
class Setting:
    section: str
    field: str
    environment: str
    default: str
    allowed: str
    words: str


@cache
def sections() -> tuple[Section, ...]:
    words = _config_words()
    return tuple(Section(name, words.get((name, ""), "")) for name in Settings.model_fields)


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting. Raises KeyError where config.toml lacks one."""
    words, schemas = _config_words(), Settings.model_json_schema()["$defs"]
    found = []
    for section, field, environment in environment_names():
        kind = Settings.model_fields[section].annotation
        assert kind is not None
        schema = schemas[kind.__name__]["properties"][field]
        found.append(
            Setting(section, field, environment, _default(schema), _allowed(schema), words[section, field]),
        )
    return tuple(found)


def _config_words() -> dict[tuple[str, str], str]:
    """{(section, field): the comment beside it in config.toml}; the field of a section's own comment is ''."""
    found: dict[tuple[str, str], list[str]] = {}
    section, current = "", ("", "")
    for line in (ROOT / "config.toml").read_text().splitlines():
        if header := re.match(r"\[(\w+)\](?:\s*#\s*(.*))?$", line):
            section, current = header[1], (header[1], "")
            found[current] = [header[2] or ""]
        elif setting := re.match(r"(\w+) = .*?#\s*\[[A-Z0-9_]+\]\s*(.*)$", line):
            current = (section, setting[1])
            found[current] = [setting[2]]
        elif more := re.match(r"\s+#\s*(.*)$", line):
            found[current].append(more[1])
    return {key: _sentence(" ".join(lines).strip()) for key, lines in found.items()}


def _sentence(words: str) -> str:
    words = words.replace("*", "\\*")
    ended = words if not words or words.endswith(".") else f"{words}."
    return ended[:1].upper() + ended[1:]


def _default(schema: Json) -> str:
    value = schema.get("default", "")
    if value == "":
        return "(empty)"
    return value if isinstance(value, str) else json.dumps(value)


def _allowed(schema: Json) -> str:
    """The kind of a value, and its bounds."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "string")
    if kind == "boolean":
        return "`true`, `false`"
    if kind in ("integer", "number"):
        return _bounds(schema) or "a number"
    if kind == "array":
        inner = _allowed(schema["items"]) if "items" in schema else ""
        return f"a list of {inner}" if inner.startswith("`") else "a list"
    if kind == "object":
        inner = _bounds(schema.get("additionalProperties", {}))
        return f"a table, each {inner}" if inner else "a table"
    return {"password": "a secret", "path": "a path"}.get(schema.get("format", ""), "text")


def _bounds(schema: Json) -> str:
    least, most, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if above is not None:
        return f"more than {above}, at most {most}" if most is not None else f"more than {above}"
    if least is not None and most is not None:
        return f"{least} to {most}"
    return f"{least} or more" if least is not None else ""


@dataclass(frozen=True, slots=True)
class Parameter:
    label: str
    options: tuple[str, ...]
    takes_value: bool
    required: bool
    default: str
    help: str
    environment: str


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    help: str
    is_group: bool
    parameters: tuple[Parameter, ...]

    @property
    def usage(self) -> str:
        words = [self.name]
        words += [f"[{one.label}]" if not one.required else one.label for one in self.parameters]
        return " ".join(words)


@cache
def commands() -> tuple[Command, ...]:
    return tuple(_commands("imgsvc", typer.main.get_command(main.app)))


def _commands(name: str, command: Any) -> Iterator[Command]:
    inner: Mapping[str, Any] = getattr(command, "commands", {})
    yield Command(name, " ".join((command.help or "").split()), bool(inner), tuple(map(_parameter, command.params)))
    for word, one in inner.items():
        yield from _commands(f"{name} {word}", one)


def _parameter(one: Any) -> Parameter:
    is_option = one.param_type_name == "option"
    takes_value = not getattr(one, "is_flag", False)
    label = one.opts[0] if is_option else (one.metavar or one.name.upper())
    if is_option and takes_value:
        label += f" {(one.metavar or one.name).upper()}"
    elif not is_option and one.nargs != 1:
        label += " …"
    default = "" if one.default in (None, False, []) else str(one.default)
    text = " ".join((getattr(one, "help", "") or "").split())
    return Parameter(label, tuple(one.opts), takes_value, bool(one.required), default, text, one.envvar or "")


def run_help() -> str:
    """What `./run help` prints."""
    found = re.search(r"<<'HELP'\n(.*?)\nHELP\n", (ROOT / "run").read_text(), re.DOTALL)
    assert found
    return found[1]


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: str
    labels: Mapping[str, tuple[str, ...]]
    help: str


@cache
def metrics() -> tuple[Metric, ...]:
    """Ours, with the label values that are there from the start."""
    own = Metrics(Settings())
    for backend in BACKENDS:
        own.uses_storage(backend)
    collectors = own._collectors  # nothing public lists label names of a metric that has no series yet
    found = []
    for collector in collectors._collector_to_names:
        names = tuple(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            if family.name.startswith("process_"):
                continue
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            series = [one.labels for one in family.samples]
            if family.type == "info":
                names = tuple(series[0])
                series = []
            values = {name: tuple(dict.fromkeys(labels[name] for labels in series if name in labels)) for name in names}
            found.append(Metric(family.name + suffix, family.type, values, family.documentation))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    severity: str
    waits: str
    expression: str
    summary: str
    description: str
    reason: str


@cache
def alerts() -> tuple[Alert, ...]:
    text = (files("imgsvc") / ALERTS).read_text()
    found = []
    for group in yaml.safe_load(text)["groups"]:
        for rule in group["rules"]:
            notes, name = rule["annotations"], rule["alert"]
            comment = re.search(rf"((?:^ *#.*\n)+) *- alert: {name}$", text, re.MULTILINE)
            reason = re.sub(r"\s*#\s*", " ", comment[1]).strip() if comment else ""
            found.append(
                Alert(
                    name,
                    rule["labels"]["severity"],
                    rule.get("for", ""),
                    rule["expr"].strip(),
                    notes["summary"],
                    notes["description"].strip(),
                    reason,
                )
            )
    return tuple(found)
