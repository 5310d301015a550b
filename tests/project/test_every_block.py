"""Every block of README, start and guides is run by a test, or at least read by a parser."""

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.pages import ROOT, Block, Page
from imgsvc import Settings
from imgsvc.settings import environment_names
from tests.support.papers import PAGES

FOR_READERS = [page for page in PAGES if page.path.parts[0] in ("README.md", "CONTRIBUTING.md")]
FOR_READERS += [page for page in PAGES if page.path.parts[:2] in (("docs", "start"), ("docs", "guides"))]
OF_COMPOSE = {"WITH_DASK"}  # a variable of compose.yaml itself
# Which test runs the blocks of a page: those marked `<!-- run: KIND -->`.
RUN_BY = {
    ("README.md", ""): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("README.md", "serve"): "test_readme_starts_the_service_as_the_tour_does",
    ("docs/start/tour.md", ""): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/start/tour.md", "serve"): "test_service_starts_as_a_page_says",
    ("docs/start/container.md", "container"): "test_commands_inside_a_container",
    ("docs/guides/backups.md", "backups"): "test_guide_to_backups",
    ("docs/guides/backups.md", "cron"): "test_nightly_backup",
    ("docs/guides/browser.md", "form"): "test_form_of_the_guide_uploads_twenty_files_at_once",
    ("docs/guides/browser.md", "placeholder"): "test_placeholder_of_the_guide",
    ("docs/guides/client.md", "client"): "test_python_client_of_the_guide",
    ("docs/guides/client.md", "commands"): "test_commands_of_the_client",
    ("docs/guides/erasing.md", "erasing"): "test_guide_to_erasing",
    ("docs/guides/erasing.md", "python"): "test_guide_to_erasing",
    ("docs/guides/expiry.md", ""): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/guides/expiry.md", "browser"): "test_examples_for_browsers",
    ("docs/guides/expiry.md", "commands"): "test_commands_for_the_images_of_all_users",
    ("docs/guides/expiry.md", "python"): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/guides/installing.md", "installing"): "test_first_command_of_an_installation",
    ("docs/guides/installing.md", "release"): "test_checksums_are_what_sha256sum_reads",
    ("docs/guides/installing.md", "checks"): "test_checks_of_an_installation",
    ("docs/guides/keys.md", ""): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/guides/keys.md", "browser"): "test_examples_for_browsers",
    ("docs/guides/keys.md", "commands"): "test_commands_for_keys_webhooks_and_sessions",
    ("docs/guides/keys.md", "python"): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/guides/lists.md", ""): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/guides/lists.md", "browser"): "test_examples_for_browsers",
    ("docs/guides/lists.md", "commands"): "test_commands_for_the_images_of_all_users",
    ("docs/guides/machines.md", "openssl"): "test_certificates_of_the_guide_to_machines",
    ("docs/guides/lists.md", "python"): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/guides/quotas.md", ""): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/guides/quotas.md", "browser"): "test_examples_for_browsers",
    ("docs/guides/quotas.md", "python"): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/guides/monitoring.md", "operator"): "test_commands_of_the_operator",
    ("docs/guides/monitoring.md", "prometheus"): "test_prometheus_finds_metrics_and_rules",
    ("docs/guides/permissions.md", "authorization"): "test_authorization_server_is_asked_as_the_guide_says",
    ("docs/guides/private-images.md", "private"): "test_guide_to_private_images_runs_as_it_is_written",
    ("docs/guides/private-images.md", "serve"): "test_service_starts_as_a_page_says",
    ("docs/guides/private-images.md", "signing"): "test_application_that_shares_the_key_signs_for_itself",
    ("docs/guides/proxy.md", "accel"): "test_nginx_sends_what_the_service_allows",
    ("docs/guides/proxy.md", "caddy"): "test_caddy_passes_uploads_on",
    ("docs/guides/proxy.md", "modes"): "test_modes_of_earlier_files_are_changed_as_the_guide_says",
    ("docs/guides/proxy.md", "proxy"): "test_nginx_passes_uploads_on",
    ("docs/guides/s3.md", "policy"): "test_policy_allows_what_the_storage_calls",
    ("docs/guides/s3.md", "serve"): "test_service_starts_as_a_page_says",
    ("docs/guides/sizes.md", "bucket"): "test_guide_to_sizes",
    ("docs/guides/sizes.md", "sizes"): "test_guide_to_sizes",
    ("docs/guides/single-sign-on.md", "commands"): "test_commands_for_keys_webhooks_and_sessions",
    ("docs/guides/testing.md", "pytest"): "test_example_for_an_applications_own_tests_passes",
    ("docs/guides/tokens.md", "limits"): "test_token_with_the_limits_of_the_guide",
    ("docs/guides/upgrading.md", "checks"): "test_checks_of_an_installation",
    ("docs/guides/webhooks.md", "curl"): "test_receiver_of_the_guide",
    ("docs/guides/webhooks.md", "node"): "test_receiver_of_the_guide",
    ("docs/guides/webhooks.md", "receiver"): "test_receiver_of_the_guide",
    ("docs/guides/webhooks.md", "commands"): "test_commands_for_keys_webhooks_and_sessions",
    ("docs/guides/uploading.md", ""): "test_tours_and_guide_to_uploading_run_as_they_are_written",
    ("docs/guides/uploading.md", "events"): "test_examples_for_browsers",
    ("docs/guides/uploading.md", "browser"): "test_example_for_browsers_uploads_from_another_origin",
    ("docs/guides/uploading.md", "calls"): "test_calls_of_the_guide_to_uploading",
    ("docs/guides/uploading.md", "events_python"): "test_further_examples_of_the_guide_to_uploading",
    ("docs/guides/uploading.md", "fetch_browser"): "test_examples_for_browsers",
    ("docs/guides/uploading.md", "fetch_curl"): "test_further_examples_of_the_guide_to_uploading",
    ("docs/guides/uploading.md", "fetch_python"): "test_further_examples_of_the_guide_to_uploading",
    ("docs/guides/uploading.md", "python"): "test_tours_and_guide_to_uploading_run_as_they_are_written",
}


def shell_syntax(text: str) -> str:
    """Lines that only set environment variables are read as the service reads them."""
    lines = [line.split("=", 1) for line in text.splitlines()]
    if all(len(line) == 2 and line[0].isupper() for line in lines):
        given = {name: value for name, value in lines if name not in OF_COMPOSE}
        unknown = given.keys() - {name for _, _, name in environment_names()}
        Settings.load(environ=given)
        return f"no settings: {', '.join(unknown)}" if unknown else ""
    return subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True).stderr


def unit_syntax(text: str) -> str:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.read_string(text)
    if unit.sections() != ["Unit", "Service", "Install"]:
        return "other sections than a unit's"
    if not shutil.which("systemd-analyze"):
        return ""
    here = re.sub(r"^User=.*", "User=root", text, flags=re.MULTILINE)
    here = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", here, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "imgsvc.service"
        file.write_text(here)
        # It reports unknown names and values only in words.
        return subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True
        ).stderr


# What is wrong with a block that is not run: "", words, or an exception.
PARSERS: dict[str, Callable[[str], Any]] = {
    "sh": shell_syntax,
    "json": lambda text: json.loads(text) and "",
    "yaml": lambda text: yaml.safe_load(text) and "",
    "toml": lambda text: Settings.model_validate(tomllib.loads(text)) and "",
    "python": lambda text: ast.parse(text) and "",
    "ini": unit_syntax,
}


def fault(page: Page, block: Block) -> str:
    """Why nothing is known of this block, or what is wrong with it; empty: it is run, or a parser takes it."""
    if block.mark == "gives":
        return ""  # compared by the test that runs the block before it
    if block.mark == "run":
        return "" if (str(page.path), block.kind) in RUN_BY else f"no test runs blocks of kind {block.kind!r}"
    if block.language not in PARSERS:
        return f"is neither run nor read by a parser for {block.language!r}"
    try:
        return str(PARSERS[block.language](block.text))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("page", FOR_READERS, ids=lambda page: str(page.path))
def test_every_block_is_run_or_read_by_a_parser(page: Page) -> None:
    found = {block.text: fault(page, block) for block in page.blocks}
    assert {text: words for text, words in found.items() if words} == {}


def test_every_test_that_runs_blocks_is_there() -> None:
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in RUN_BY.values() if f"def {name}(" not in tests] == []
    kinds = {(str(page.path), block.kind) for page in FOR_READERS for block in page.blocks if block.mark == "run"}
    assert kinds == set(RUN_BY)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```sh\necho 'open\n```", "unexpected EOF"),
        ("```sh\nIMGSVC_NOTHING=1\n```", "SettingsError: IMGSVC_NOTHING"),
        ("```sh\nNOTHING=1\n```", "no settings: NOTHING"),
        ("```sh\nIMGSVC_WORKERS_ENGINE=steam\n```", "SettingsError"),
        ("```json\n{'a': 1}\n```", "JSONDecodeError"),
        ("```yaml\na: [1\n```", "ParserError"),
        ("```toml\n[uploads]\nnothing = 1\n```", "ValidationError"),
        ("```python\ndef f(:\n```", "SyntaxError"),
        ("```ini\n[Service]\n```", "other sections"),
        ("```nginx\nserver {}\n```", "neither run nor read"),
        ("```\nwhat is this\n```", "neither run nor read"),
        ("<!-- run: nothing -->\n```sh\ntrue\n```", "no test runs"),
    ],
    ids=lambda value: value.partition("\n")[0].strip("`"),
)
def test_fault_of_a_block_is_found(text: str, words: str) -> None:
    page = Page(Path("README.md"), text)
    assert words in fault(page, *page.blocks)
