"""Write config.toml and docs/reference/ from the code: `./run docs`. With `--check`, exit with 1 if they are stale."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs import check, config_file, endpoints
from docs.markdown import GENERATED, code, escaped, table
from docs.sources import (
    ALERTS,
    CODES,
    JOB_CODES,
    ROOT,
    Alert,
    Metric,
    Parameter,
    Setting,
    alerts,
    commands,
    limit_of,
    metrics,
    run_help,
    sections,
    settings,
)


def settings_page() -> str:
    """Every setting with its environment name, default, allowed values and words."""
    parts = [
        "# Settings",
        GENERATED,
        "A setting can be given in three places. A later one overrides an earlier one:\n\n"
        "1. `config.toml` in the working folder, or the file that `--config` names,\n"
        "2. a `.env` file beside it,\n"
        "3. the environment.",
        "A misspelt name in `config.toml`, and a variable that begins with `IMGSVC_` and is no setting, stops "
        "the start with one line that names it. What Kubernetes adds for a service of a name like this one is "
        "[ignored](../guides/installing.md#on-kubernetes).",
        "The repository's own `config.toml` shows every setting with its default. A line that is removed means the "
        "same as the default. A value that can't be used stops the start with one line that names the setting, the "
        "value and what is allowed.",
        "Append `_FILE` to any environment name to read the value from a file, as container engines hand over "
        "secrets: `JWT_SECRET_KEY_FILE=/run/secrets/jwt`. One newline at the end of the file is ignored. A file that "
        "is empty or unreadable stops the start, and so does giving a setting both ways in one place.",
        "Lists are written as JSON or separated by commas (`a,b`), tables as JSON or as `name=1,other=2`.",
    ]
    for section in sections():
        rows = [_setting_row(one) for one in settings() if one.section == section.name]
        parts += [f"## [{section.name}]", *([escaped(section.words)] if section.words else [])]
        parts.append(table(("setting", "environment", "default", "allowed", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def _setting_row(one: Setting) -> tuple[str, ...]:
    return code(one.field), code(one.environment), code(one.default), one.allowed, escaped(one.words)


def errors_page() -> str:
    """A heading for each error code, so that every code can be linked."""
    by_status: dict[int, list[str]] = {}
    for name, known in CODES.items():
        if name not in JOB_CODES:
            by_status.setdefault(known.status, []).append(name)
    parts = [
        "# Errors",
        GENERATED,
        "Every error is an `application/problem+json` document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) "
        "with a stable `code`, a `detail` in plain words, a `type` that links to the page `/errors/{code}` of the "
        "service itself, and the `trace_id` that appears in every log line of the request and its job. An error "
        "about a limit states the limit and the measured value. The limits below are those of the default settings.",
        table(
            ("status", "codes"),
            [(str(status), ", ".join(map(link_here, names))) for status, names in sorted(by_status.items())],
        ),
        "## Codes of responses",
    ]
    parts += [_error(name) for names in by_status.values() for name in sorted(names)]
    parts += [
        "## Codes of failed jobs",
        "These appear only as `error_code` in the status of a job, never as a response. Codes above, such as "
        "`image_unreadable`, can appear there too. `retryable` says whether another attempt can help.",
        *(_error(name, with_status=False) for name in JOB_CODES),
    ]
    return "\n\n".join(parts) + "\n"


def link_here(name: str) -> str:
    return f"[`{name}`](#{name})"


def _error(name: str, *, with_status: bool = True) -> str:
    known, limit = CODES[name], limit_of(name)
    lines = [f"### {name}", ""]
    if with_status:
        lines += [f"Status {known.status}. {known.meaning}", ""]
    else:
        lines += [known.meaning, ""]
    if limit:
        lines += [f"*Limit:* {limit}.", ""]
    return "\n".join([*lines, f"*What to do:* {known.advice}"])


def commands_page() -> str:
    """`./run` and every command of `imgsvc`."""
    parts = [
        "# Commands",
        GENERATED,
        "In a clone of the repository, write `./run imgsvc …`; `serve` and `token` also work as `./run serve` and "
        "`./run token`. In the container, write `docker compose exec imgsvc imgsvc …`.",
        "Exit status: 0 done, 1 understood but unsuccessful (or something was found), 2 wrong arguments or settings, "
        "130 after Ctrl-C.",
        "## The ./run script",
        f"```text\n{run_help()}\n```",
    ]
    for one in commands():
        if one.is_group:
            continue
        parts += [f"## {one.name}", one.help, f"```text\n{one.usage}\n```"]
        rows = [_parameter_row(parameter) for parameter in one.parameters]
        if rows:
            parts.append(table(("argument or option", "default", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def _parameter_row(one: Parameter) -> tuple[str, ...]:
    words = f"{one.help} Environment: `{one.environment}`." if one.environment else one.help
    return code(one.label), "required" if one.required else code(one.default) if one.default else "", words


def metrics_page() -> str:
    """Every metric of /metrics, and every alert rule."""
    parts = [
        "# Metrics and alerts",
        GENERATED,
        "`GET /metrics` exports these in Prometheus' text format, or as OpenMetrics when the scraper asks for it. "
        "How to set it up: [Monitoring](../guides/monitoring.md#prometheus). All durations are in seconds. A label "
        "value is always one of a known set (a route's template, a status, a variant's name), never an ID or a "
        "client's text.",
        "## Metrics",
        table(("metric", "type", "labels", "meaning"), [_metric_row(one) for one in metrics()]),
        "The standard `process_*` metrics describe the memory, processor time and open files of the service's main "
        "process.",
        "## Alerts",
        f"The rules are one file, `{ALERTS}`, which is part of the installed package. `page` means that uploads fail "
        "or photos may be lost now; `ticket` means: look at it within a day.",
        table(
            ("alert", "severity", "summary"),
            [(f"[{one.name}](#{one.name.lower()})", one.severity, one.summary) for one in alerts()],
        ),
        *(_alert(one) for one in alerts()),
    ]
    return "\n\n".join(parts) + "\n"


def _metric_row(one: Metric) -> tuple[str, ...]:
    labels = []
    for name, values in one.labels.items():
        labels.append(f"{code(name)}: {', '.join(map(code, values))}" if values else code(name))
    return code(one.name), one.kind, "; ".join(labels), one.help


def _alert(one: Alert) -> str:
    waits = f", after {one.waits}" if one.waits else ""
    return "\n\n".join(
        [
            f"### {one.name}",
            f"*{one.severity}{waits}.* {one.description}",
            f"```promql\n{one.expression}\n```",
            f"Why this threshold: {one.reason}",
        ]
    )


GENERATED_FILES: Mapping[str, Callable[[], str]] = {
    "config.toml": config_file.text,
    "docs/reference/endpoints.md": endpoints.page,
    "docs/reference/settings.md": settings_page,
    "docs/reference/errors.md": errors_page,
    "docs/reference/commands.md": commands_page,
    "docs/reference/metrics.md": metrics_page,
}


def stale(root: Path = ROOT) -> list[str]:
    """The paths of generated files that differ from what the code says now."""
    return [path for path, make in GENERATED_FILES.items() if not _is(root / path, make())]


def _is(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text() == text


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 when something is stale")
    if not parser.parse_args().check:
        for path, make in GENERATED_FILES.items():
            (ROOT / path).write_text(make())
        return 0
    problems = [f"{path} is stale: run ./run docs" for path in stale()] + check.problems()
    for problem in problems:
        print(f"docs: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
