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

from imgsvc.access.token_limits import TokenLimits
from imgsvc.cli import main
from imgsvc.http.openapi.description import TAGS as TAGS
from imgsvc.http.openapi.document import build
from imgsvc.http.openapi.operations import EVERYWHERE as EVERYWHERE
from imgsvc.http.wire.error_codes import CODES as CODES
from imgsvc.http.wire.error_codes import limit_of as limit_under
from imgsvc.jobs.failures import JOB_CODES as JOB_CODES
from imgsvc.service.routes import ROUTES as ROUTES
from imgsvc.settings import Settings, all_settings
from imgsvc.settings.storage import Storage
from imgsvc.telemetry.metrics import Metrics

ALERTS = "telemetry/alerts.yml"  # in the package
ROOT = Path(__file__).parent.parent
BACKENDS = ("local", "s3")
TOKEN_LIMITS = frozenset(TokenLimits.model_fields)
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
    value: Any  # the default, as TOML has it
    allowed: str
    bounds: str
    words: str

    @property
    def default(self) -> str:
        """The default, for a cell of a table."""
        if self.value == "":
            return "(empty)"
        return self.value if isinstance(self.value, str) else json.dumps(self.value)


@cache
def sections() -> tuple[Section, ...]:
    """Every section, with its docstring as words."""
    schemas = Settings.model_json_schema()["$defs"]
    return tuple(Section(name, schemas[_kind(name)].get("description", "")) for name in Settings.model_fields)


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting that has an effect, in the order of their declaration."""
    schemas = Settings.model_json_schema()["$defs"]
    found = []
    for one in all_settings():
        if not one.retired:
            schema = schemas[_kind(one.section)]["properties"][one.field]
            bounds = _bounds(schema, one.unit)
            allowed = _allowed(schema, bounds)
            found.append(
                Setting(one.section, one.field, one.environment, schema["default"], allowed, bounds, one.words)
            )
    return tuple(found)


def _kind(section: str) -> str:
    kind = Settings.model_fields[section].annotation
    assert kind is not None
    return kind.__name__


def _allowed(schema: Json, bounds: str) -> str:
    """The kind of a value, and its bounds."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "string")
    if kind == "boolean":
        return "`true`, `false`"
    if kind in ("integer", "number"):
        return bounds
    if kind == "array":
        inner = _allowed(schema["items"], "") if "items" in schema else ""
        return f"a list of {inner}" if inner.startswith("`") else "a list"
    if kind == "object":
        return f"a table, {bounds}"
    return {"password": "a secret", "path": "a path"}.get(schema.get("format", ""), "text")


def _bounds(schema: Json, unit: str) -> str:
    """The bounds of a number, or of each number of a table, with the unit; "" for other kinds of values."""
    if schema.get("type") == "object":
        return f"each {_bounds(schema['additionalProperties'], unit)}"
    if schema.get("type") not in ("integer", "number"):
        return ""
    least, most, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if above is not None:
        found = f"more than {above}, up to {most}" if most is not None else f"more than {above}"
    else:
        found = f"{least} to {most}" if most is not None else f"{least} or more"
    return f"{found} {unit}".strip()


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
        own.storage.uses(backend)
    own.text("")  # a first scrape: the series that begin at zero are there from now on
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
