"""The papers are right: links lead somewhere, names exist, generated pages are fresh, and the examples run."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from docs import check, generate, mentions
from docs.pages import ROOT, Page, slug
from fixtures import make
from imgsvc import testing
from tests.support.browser import browsing, in_browser
from tests.support.dashboard_page import TOKEN
from tests.support.papers import MARK, PAGES, TOUR_HOST, TOUR_SECONDS, marked, run_blocks, runs, succeeds
from tests.support.server_process import WAIT_SECONDS, InlineServer, bearer


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path))
def test_page_mentions_only_what_exists(page: Page) -> None:
    assert check.of_page(page) == []


def test_site_lists_every_page() -> None:
    assert list(check.navigation()) == []


def test_screenshot_shows_the_dashboard_as_it_is() -> None:
    assert list(check.screenshot()) == []


def test_generated_files_are_fresh() -> None:
    assert generate.stale() == []


FAULTS: list[tuple[Callable[[Page], Iterator[str]], str, str]] = [
    (check.links, "[a](docs/nowhere.md)", "leads nowhere"),
    (check.links, "[a](docs/guides/tokens.md#nothing)", "no such heading"),
    (check.links, "# Two - words", "another anchor"),
    (check.sizes, "x" * 8193, "at most 8192"),
    (check.places, "## Where would I add …?\n| a | `imgsvc/nowhere.py` | `A` |\n\n## B", "no such file"),
    (check.paths, "`imgsvc/nowhere.py`", "imgsvc/nowhere.py"),
    (check.places, "## Where would I add …?\n| a | `imgsvc/__init__.py` | `Nothing` |\n\n## B", "defines no Nothing"),
    (mentions.commands, "```sh\n./run nothing\n```", "./run nothing"),
    (mentions.commands, "`./run imgsvc storage nothing`", "imgsvc storage nothing"),
    (mentions.commands, "```sh\n./run imgsvc storage \\\n   gc --nothing\n```", "no option --nothing"),
    (mentions.addresses, "`GET /api/v1/nothing/{image_id}`", "/api/v1/nothing/{image_id}"),
    (mentions.addresses, '```sh\nB=http://h/api/v1/images\ncurl "$B/1/nothing"\n```', "/api/v1/images/1/nothing"),
    (mentions.settings, "`[server] nothing`", "[server] nothing"),
    (mentions.settings, "```sh\nIMGSVC_NOTHING=1 ./run serve\n```", "IMGSVC_NOTHING"),
    (mentions.codes, "a 401 `token_missing` or `nothing`", "nothing"),
    (mentions.metrics, "`nothing_total`", "nothing_total"),
]


@pytest.mark.parametrize(("find", "text", "words"), FAULTS, ids=[words for _, _, words in FAULTS])
def test_fault_is_found(find: Callable[[Page], Iterator[str]], text: str, words: str) -> None:
    (problem,) = find(Page(Path("README.md"), text))
    assert words in problem


def test_folder_that_is_not_explained_is_found() -> None:
    found = list(check.rooms(Page(Path("docs/background/architecture.md"), "`imgsvc/http`")))
    assert "imgsvc/jobs is not explained" in found and "imgsvc/http is not explained" not in found


def test_stale_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    for path in generate.GENERATED_FILES:
        (tmp_path / path).write_text((ROOT / path).read_text())
    assert generate.stale(tmp_path) == []
    (tmp_path / "config.toml").write_text("older")
    (tmp_path / "docs" / "reference" / "errors.md").write_text("older")
    (tmp_path / "docs" / "reference" / "metrics.md").unlink()
    assert generate.stale(tmp_path) == ["config.toml", "docs/reference/errors.md", "docs/reference/metrics.md"]


def test_heading_has_one_anchor_everywhere() -> None:
    assert slug("POST /api/v1/images/{image_id}") == "post-apiv1imagesimage_id"


# What the example in Python of a guide prints.
PYTHON_EXAMPLES = {
    "docs/guides/uploading.md": r"/storage/holiday/processed/medium/.*_medium\.webp\n$",
    "docs/guides/quotas.md": r"[1-9]\d+ bytes\n$",
    "docs/guides/expiry.md": r"{'title': 'Kept'} None\n$",
    "docs/guides/keys.md": r"/api/v1/images/jobs/[0-9a-f-]{36}\n$",
    "docs/guides/lists.md": r"\S+ [0-9a-f-]{36} photo\.jpg\n",
}
# As `python -c` does it, one after another in one interpreter, which loads httpx once.
EACH_EXAMPLE = f"""
import json, sys
for text in json.load(sys.stdin):
    exec(compile(text, "<example>", "exec"), {{"__name__": "__main__"}})
    print({MARK!r})
"""


@pytest.mark.process
def test_tours_and_guide_to_uploading_run_as_they_are_written(clone: Path, tmp_path: Path) -> None:
    with InlineServer(tmp_path) as server:
        for path in (
            "README.md",
            "docs/start/tour.md",
            "docs/guides/uploading.md",
            "docs/guides/lists.md",
            "docs/guides/quotas.md",
            "docs/guides/expiry.md",
            "docs/guides/keys.md",
        ):
            run_blocks(server, clone, marked(path))
        token = bearer()["Authorization"].removeprefix("Bearer ")
        examples = [example.text for path in PYTHON_EXAMPLES for example in marked(path, kind="python")]
        command = [sys.executable, "-c", EACH_EXAMPLE, server.url, token]
        done = subprocess.run(
            command, cwd=clone, input=json.dumps(examples), capture_output=True, text=True, timeout=WAIT_SECONDS
        )
        assert done.returncode == 0, done.stderr
        *said, rest = done.stdout.split(f"{MARK}\n")
        assert rest == ""
        for (path, printed), one in zip(PYTHON_EXAMPLES.items(), said, strict=True):
            assert re.match(printed, one), path


@pytest.mark.process
def test_further_examples_of_the_guide_to_uploading(clone: Path, tmp_path: Path) -> None:
    """The address is this machine's, which is refused: what the example says of that is the service's answer."""
    with InlineServer(tmp_path, IMGSVC_FETCH_ALLOWED_HOSTS='["localhost"]') as server:
        for kind, printed in (("events_python", r"(\w+\n){4}completed\n$"), ("fetch_python", "")):
            (example,) = marked("docs/guides/uploading.md", kind=kind)
            token = bearer()["Authorization"].removeprefix("Bearer ")
            command = [sys.executable, "-c", example.text, server.url, token, "https://localhost/photo.jpg"]
            done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=WAIT_SECONDS)
            assert re.match(printed, done.stdout), (kind, done.stderr)
            if kind == "fetch_python":
                assert done.stderr.startswith("fetch_failed: The image could not be fetched"), done.stderr
        (script,) = runs("docs/guides/uploading.md", "fetch_curl")
        script = script.replace(TOUR_HOST, server.url).replace("cdn.example.org", "localhost")
        assert '"fetch_failed"' in succeeds(script, clone, {**server.environ, "TOKEN": token})


def reference_calls() -> Iterator[tuple[str, str, set[str]]]:
    """(heading, curl line, statuses) of each operation of the reference."""
    text = (ROOT / "docs" / "reference" / "endpoints.md").read_text()
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        (call,) = re.findall(r"^```sh\n(curl .*)\n```$", section, re.MULTILINE)
        yield section.partition("\n")[0], call, set(re.findall(r"^- \*\*(\d{3})\*\*", section, re.MULTILINE))


@pytest.mark.process
def test_every_call_of_the_reference_gets_an_answer_that_it_lists(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(make.jpeg())
    with InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN) as server:
        job = server.job_ended(server.upload(make.jpeg()).json()["job_id"])
        calls = sorted(
            reference_calls(),
            key=lambda one: one[0].startswith("DELETE ") and ("/images/" in one[0] or "/users/" in one[0]),
        )  # at last
        ticket = httpx.post(f"{server.url}/api/v1/images/tickets", json={"bucket": "holiday"}, headers=bearer())
        variables = {
            "HOST": server.url,
            "TOKEN": bearer()["Authorization"].removeprefix("Bearer "),
            "OPERATOR": TOKEN,
            "JOB_ID": job["job_id"],
            "IMAGE_ID": job["image_id"],
            "TICKET": ticket.json()["ticket"],
            "KEY_ID": job["image_id"],  # of no key
            "ERASURE_ID": job["image_id"],  # of no erasure
        }
        script = "\n".join(f"{call} -s -w '%{{stderr}}%{{http_code}}\\n' >/dev/null" for _, call, _ in calls)
        done = subprocess.run(
            ["bash", "-c", script.replace("/backup/imgsvc", f"{tmp_path}/backup")],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=TOUR_SECONDS,
        )
        answered = done.stderr.split()
        assert len(answered) == len(calls) > 30
        for (heading, call, statuses), status in zip(calls, answered, strict=True):
            assert status in statuses, (heading, call, status)


@pytest.mark.process
def test_guide_to_private_images_runs_as_it_is_written(clone: Path, tmp_path: Path) -> None:
    with InlineServer(tmp_path, IMGSVC_STORAGE_SIGNED_URLS="true") as server:
        run_blocks(server, clone, marked("docs/guides/private-images.md", kind="private"))


@pytest.mark.process
@in_browser
async def test_example_for_browsers_uploads_from_another_origin(tmp_path: Path) -> None:
    """The page is one of the same server under its other name, which is another origin to a browser."""
    (example,) = marked("docs/guides/uploading.md", kind="browser")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    origin = f"http://localhost:{port}"
    server = InlineServer(tmp_path, IMGSVC_SERVER_CORS_ORIGINS=origin)
    call = f"""async ([service, token, bytes]) => {{
        {example.text}
        const file = new File([Uint8Array.from(atob(bytes), one => one.charCodeAt(0))], "a.jpg");
        const image = new Image();
        image.src = await upload(service, token, file);
        await image.decode();
        return image.naturalWidth;
    }}"""
    token = bearer()["Authorization"].removeprefix("Bearer ")
    with ExitStack() as stack:
        stack.push(server.start(port))
        async with browsing(origin) as visit:
            await visit.page.goto(f"{origin}/info")
            picture = base64.b64encode(make.jpeg()).decode()
            assert await visit.page.evaluate(call, [server.url, token, picture]) > 0


@pytest.mark.process
@in_browser
async def test_examples_for_browsers(tmp_path: Path) -> None:
    """The short ones of several guides, after one another on one page of another origin."""
    texts = [runs(f"docs/guides/{page}.md", "browser")[0] for page in ("lists", "expiry", "quotas", "keys")]
    texts += runs("docs/guides/uploading.md", "events") + runs("docs/guides/uploading.md", "fetch_browser")
    call = f"""async ([service, token, bytes]) => {{
        {" ".join(texts)}
        const headers = {{ Authorization: `Bearer ${{token}}`, "Content-Type": "application/json" }};
        const wanted = {{ method: "POST", headers, body: JSON.stringify({{ bucket: "album" }}) }};
        const ticket = await (await fetch(`${{service}}/api/v1/images/tickets`, wanted)).json();
        const file = new File([Uint8Array.from(atob(bytes), one => one.charCodeAt(0))], "a.jpg");
        const receipt = await uploadWithTicket(service, ticket, file);
        const ready = [];
        const job = await follow(service, receipt.job_id, (news) => ready.push(news.variant));
        const changed = await keepUntil(service, token, receipt.image_id, new Date(Date.now() + 3_600_000));
        const found = [];
        for await (const one of photos(service, token, "album")) found.push(one);
        const refused = await fetchByAddress(service, token, "https://localhost/a.jpg").catch((error) => error.message);
        return {{ ready, job, changed, found, refused, share: await shareOfQuota(service, token) }};
    }}"""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    origin = f"http://localhost:{port}"
    server = InlineServer(
        tmp_path,
        IMGSVC_SERVER_CORS_ORIGINS=origin,
        IMGSVC_QUOTA_BYTES_PER_USER="100000000",
        IMGSVC_FETCH_ALLOWED_HOSTS='["localhost"]',
    )
    with ExitStack() as stack:
        stack.push(server.start(port))
        async with browsing(origin) as visit:
            await visit.page.goto(f"{origin}/info")
            token = bearer()["Authorization"].removeprefix("Bearer ")
            picture = base64.b64encode(make.jpeg(64, 48)).decode()
            told = await visit.page.evaluate(call, [server.url, token, picture])
    assert told["job"]["status"] == "completed" and set(told["ready"]) == set(told["job"]["ready"])
    assert told["refused"] == "fetch_failed"
    assert [one["image_id"] for one in told["found"]] == [told["job"]["image_id"]]
    assert told["changed"]["expires_at"] == told["found"][0]["expires_at"] and 0 < told["share"] < 1


async def test_example_for_an_applications_own_tests_passes() -> None:
    (example,) = marked("docs/guides/testing.md", kind="pytest")
    own: dict[str, Callable[[], object]] = {"imgsvc": testing}  # type: ignore[dict-item]
    exec(example.text, own)
    await own["test_upload"]()  # type: ignore[misc]
