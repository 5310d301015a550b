"""Names of the program that a page mentions: commands, addresses, settings, error codes and metrics exist."""

import re
from collections.abc import Iterator
from functools import cache

from docs import sources
from docs.pages import Page

SHELL = ("sh", "bash", "console")
CODE = (*SHELL, "python", "js", "http", "text")
# A call of ./run or imgsvc, up to the end of its line or command.
CALL = re.compile(r"(?<![\w/.=-])(\./run|imgsvc)(?=[ \n]|$)((?: +[^\s`|;&)#]+)*)")
ADDRESS = re.compile(r"(?<![\w.-])/(?:api/v1|errors|dashboard|metrics|openapi\.json|info|docs)(?![\w.-])[\w/{}.$…-]*")
VARIABLE = re.compile(r"\b([A-Z]+)=\"?https?://[^/\s\"]+(/[^\s\"]*)?")
ENVIRONMENT = re.compile(
    r"\b(?:IMGSVC|AWS|JWT|AUTH|REDIS|STORAGE|OPERATOR|RATE_LIMIT|CIRCUIT_BREAKER|DATABASE|PUBLIC|LOG|SERVICE|IMAGE|WEBP"
    r"|MAX_UPLOAD|ALLOWED)_[A-Z0-9_]*[A-Z0-9]\b"
)
ELSEWHERE = {"IMGSVC_TOKEN", "AWS_PROFILE", "IMAGE_ID", "IMAGE_IDS"}  # names that are no settings
CODES = re.compile(r"\b[45]\d\d((?:,? (?:or |and )?\[?`[a-z_]+`)+)")
METRIC = re.compile(r"(?:[a-z]+_)+(?:total|bytes|length|duration_seconds|oldest_seconds|active|in_progress|set_aside)")


def commands(page: Page) -> Iterator[str]:
    """Each call in a shell block or in inline code names a command, and options that it has."""
    texts = [re.sub(r"\\\n *", "", block.text) for block in page.blocks if block.language in SHELL]
    for text in [*texts, *(span.replace("\n", " ") for span in page.spans)]:
        for program, rest in CALL.findall(text):
            yield from _call(program, rest.split())


def _call(program: str, words: list[str]) -> Iterator[str]:
    if program == "./run":
        if not words or words[0] == "…":
            return
        if words[0] not in _run_commands():
            yield f"./run {words[0]}: no such command"
            return
        if words[0] not in ("imgsvc", "serve", "token"):
            return
    while words and words[0] == "imgsvc":
        words = words[1:]
    known = {one.name: one for one in sources.commands()}
    name = "imgsvc"
    while words and f"{name} {words[0]}" in known:
        name, words = f"{name} {words[0]}", words[1:]
    if known[name].is_group and words and re.fullmatch(r"[a-z]+", words[0]):
        yield f"{name} {words[0]}: no such command"
    options = {option for parameter in known[name].parameters for option in parameter.options} | {"--help"}
    for word in words:
        option = word.strip("[]").partition("=")[0]
        if option.startswith("--") and option not in options:
            yield f"{name} has no option {option}"


@cache
def _run_commands() -> set[str]:
    return set(re.findall(r"^  ([a-z]+)", sources.run_help(), re.MULTILINE)) | {"help"}


def addresses(page: Page) -> Iterator[str]:
    """Each address of ours in code is one that a route matches."""
    values = {name: path or "" for block in page.blocks for name, path in VARIABLE.findall(block.text)}
    for text in [*(block.text for block in page.blocks if block.language in CODE), *page.spans]:
        for name, path in values.items():
            text = re.sub(rf"(?<=[\s\"]){re.escape('$' + name)}(?=[/\"\s])", path, text)
        for found in ADDRESS.findall(text):
            if not _matches(found):
                yield f"{found}: no route has this address"


def _matches(path: str) -> bool:
    path = re.sub(r"\{[^}/]*\}|\$\w+|…|\b[A-Z][A-Z_0-9]+\b", "x", path.rstrip("."))
    if path.endswith("/"):
        return any(route.path.startswith(path) for route in sources.ROUTES)
    return any(route.path_regex.match(path) for route in sources.ROUTES)


def settings(page: Page) -> Iterator[str]:
    """Each `[section] field` and each environment name is a setting's."""
    fields = {(one.section, one.field) for one in sources.settings()}
    sections, names = {section for section, _ in fields}, {one.environment for one in sources.settings()}
    for span in page.spans:
        for section, field in re.findall(r"\[([a-z][a-z0-9_]+)\](?: ([a-z][a-z0-9_]*))?$", span):
            if section not in sections or (field and (section, field) not in fields):
                yield f"[{section}] {field}: no such setting"
    for text in [*(block.text for block in page.blocks), *page.spans]:
        for name in ENVIRONMENT.findall(text):
            if name.removesuffix("_FILE") not in names | ELSEWHERE:
                yield f"{name}: no setting has this environment name"


def codes(page: Page) -> Iterator[str]:
    """Each `code` behind a status is one of ours."""
    for listed in CODES.findall(page.prose):
        for code in re.findall(r"`([a-z_]+)`", listed):
            if code not in sources.CODES:
                yield f"{code}: no such error code"


def metrics(page: Page) -> Iterator[str]:
    """Each metric in inline code is exported."""
    others = {*sources.CODES, *sources.TOKEN_LIMITS, *(one.field for one in sources.settings())}
    names = {one.name for one in sources.metrics()} | others
    for span in page.spans:
        if METRIC.fullmatch(span) and span not in names:
            yield f"{span}: no such metric"
