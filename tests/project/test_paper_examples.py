"""The blocks of the guides, run as they are written; those of the tours are in test_papers.py."""

import asyncio
import grp
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from docs.pages import ROOT
from docs.sources import ALERTS
from fixtures import make
from imgsvc import __version__
from imgsvc.access.tokens import Tokens
from tests.support.authorization_server import authorization_server
from tests.support.dashboard_page import TOKEN
from tests.support.forked_run import INLINE
from tests.support.nginx import PATH
from tests.support.papers import PAGES, TOUR_HOST, like, make_clone, runs, succeeds
from tests.support.s3 import S3Server
from tests.support.server_process import SECRET, WAIT_SECONDS, InlineServer, ServerProcess, bearer, until

PUBLIC = "https://img.example.org"


@contextmanager
def typed(line: str, folder: Path, environ: dict[str, str]) -> Iterator[list[str]]:
    """A service started at a terminal by this line: what it prints first."""
    try:
        ours, theirs = os.openpty()
    except OSError:
        pytest.skip("there are no terminals here")
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=log,
            start_new_session=True,
        )
    os.close(theirs)
    try:
        with os.fdopen(ours, encoding="utf-8", errors="replace") as terminal:
            yield [terminal.readline().strip() for _ in range(4)]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(WAIT_SECONDS)


def serve_line(path: str) -> str:
    (line,) = (line for text in runs(path, "serve") for line in text.splitlines() if "./run serve" in line)
    return line.partition("#")[0].strip()


def test_readme_starts_the_service_as_the_tour_does() -> None:
    assert serve_line("README.md") == serve_line("docs/start/tour.md")


@pytest.mark.process
@pytest.mark.parametrize("path", ["docs/start/tour.md", "docs/guides/private-images.md", "docs/guides/s3.md"])
def test_service_starts_as_a_page_says(path: str, tmp_path: Path) -> None:
    """The environment that a line sets takes effect; the tour shows what is printed at a terminal."""
    make_clone(tmp_path)
    line = serve_line(path)
    environ = {
        "PATH": PATH,
        "PYTHONPATH": str(ROOT),
        "IMGSVC_SERVER_PORT": "0",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }
    environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}  # or the chain would look for a machine's role
    if path != "docs/start/tour.md":
        environ |= {INLINE: "1"}
    with typed(line, tmp_path, environ) as printed:
        assert "listens on" in printed[0], (tmp_path / "log.txt").read_text()
        url = printed[0].split()[-1]
        info = httpx.get(f"{url}/info").json()
        if path == "docs/guides/s3.md":
            assert info["storage"] == {"backend": "s3", "region": "eu-central-1"}
        if path == "docs/guides/private-images.md":
            answer = httpx.get(f"{url}/api/v1/images/00000000-0000-4000-8000-000000000000/direct?size=large")
            assert answer.json()["code"] == "signature_required"
    if path == "docs/start/tour.md":
        page = next(page for page in PAGES if str(page.path) == path)
        (shown,) = (block.text for block in page.blocks if block.kind == "serve" and block.mark == "gives")
        assert like("\n".join(printed).replace(url, TOUR_HOST), re.sub(r"code=\d+…", "code=…", shown).strip()), printed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with InlineServer(folder, OPERATOR_TOKEN=TOKEN) as one:
        yield one


@pytest.mark.process
def test_commands_inside_a_container(server: ServerProcess, clone: Path, tmp_path: Path) -> None:
    for text in runs("docs/start/container.md", "container"):
        command = text.replace("docker compose exec imgsvc imgsvc", "./run imgsvc")
        succeeds(command.replace(" /backup", f" {tmp_path}/backup"), clone, server.environ)
    assert (tmp_path / "backup" / "manifest.json").is_file()


@pytest.mark.process
def test_guide_to_backups(s3: S3Server, clone: Path, tmp_path: Path) -> None:
    """The commands one after another: a backup of a running service, and the rest on what is restored from it."""
    (text,) = runs("docs/guides/backups.md", "backups")
    first, *rest = text.replace("/backup/imgsvc", f"{tmp_path}/backup").splitlines()
    with InlineServer(tmp_path, **{**s3.environment(s3.bucket()), "STORAGE_BACKEND": "local"}) as server:
        image = server.job_ended(server.upload(make.jpeg(64, 48)).json()["job_id"])["image_id"]
        succeeds(first, clone, server.environ)
        server.stop()
        shutil.rmtree(tmp_path / "data")
        shutil.rmtree(tmp_path / "storage")
        succeeds("\n".join(rest), clone, server.environ)
        server.start()
        answer = server.http.get(f"{server.url}/api/v1/images/{image}/direct?size=large")
        assert answer.status_code == 307 and answer.headers["Location"].startswith(s3.url)


@pytest.mark.process
def test_nightly_backup(server: ServerProcess, clone: Path, tmp_path: Path) -> None:
    (text,) = runs("docs/guides/backups.md", "cron")
    minute, hour, *every, command = text.strip().split(" ", 5)
    assert int(minute) < 60 and int(hour) < 24 and every == ["*", "*", "*"]
    command = command.replace("/opt/imgsvc", str(clone)).replace("/backup/imgsvc", f"{tmp_path}/backup")
    succeeds(command, tmp_path, server.environ)
    assert (tmp_path / "backup" / "manifest.json").is_file()


def test_first_command_of_an_installation(clone: Path) -> None:
    (text,) = runs("docs/guides/installing.md", "installing")
    environ = {"PATH": PATH, "PYTHONPATH": str(ROOT)}
    assert succeeds(text.replace("/opt/imgsvc", str(clone)), clone, environ) == f"imgsvc {__version__}\n"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_unit_is_one_that_systemd_takes(clone: Path, tmp_path: Path) -> None:
    page = next(page for page in PAGES if page.path.name == "installing.md")
    (text,) = (block.text for block in page.blocks if block.language == "ini")
    unit = tmp_path / "imgsvc.service"
    unit.write_text(text.replace("/opt/imgsvc", str(clone)))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert done.returncode == 0 and unit.name not in done.stderr, done.stderr


@pytest.mark.process
def test_checks_of_an_installation(clone: Path, tmp_path: Path) -> None:
    """Of the guides to installing and to upgrading; what both say is run once."""
    texts = runs("docs/guides/installing.md", "checks") + runs("docs/guides/upgrading.md", "checks")
    with InlineServer(tmp_path, JWT_SECRET_KEY=secrets.token_urlsafe(48)) as server:  # doctor dislikes the tests' own
        commands = "".join(texts).replace(PUBLIC, server.url).replace(TOUR_HOST, server.url)
        once = dict.fromkeys(line.partition("#")[0].strip() for line in commands.splitlines())
        assert set(once) == {"./run imgsvc doctor", f"./run imgsvc smoke {server.url}"}
        assert "✗" not in succeeds("\n".join(once), clone, server.environ)


@pytest.mark.process
def test_commands_of_the_operator(clone: Path, tmp_path: Path) -> None:
    """With a job that could not be stored, and can be once the hindrance is gone."""
    with InlineServer(tmp_path, OPERATOR_TOKEN=TOKEN, IMGSVC_JOBS_MAX_ATTEMPTS="1") as server:
        hindrance = server.folder / "storage" / "b"
        hindrance.write_text("where the bucket's folder would be")
        job = server.upload(make.jpeg(64, 48)).json()["job_id"]
        assert server.job_ended(job)["error_code"] == "storage_error"
        hindrance.unlink()
        link, commands = runs("docs/guides/monitoring.md", "operator")
        assert succeeds(link, clone, server.environ).startswith(f"{server.url}/dashboard#code=")
        assert job in succeeds(commands.replace("JOB", job), clone, server.environ)
        until(lambda: server.job(job)["status"] == "completed")


@pytest.mark.process
def test_guide_to_sizes(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with InlineServer(tmp_path / "s", IMGSVC_IMAGES_KEEP_SOURCE="stripped", OPERATOR_TOKEN=TOKEN) as server:
        image_id = server.job_ended(server.upload(make.leaky_jpeg()).json()["job_id"])["image_id"]
    sizes = json.dumps({"thumbnail": 150, "hero": {"width": 160, "height": 90, "fit": "cover"}})
    with InlineServer(tmp_path / "s", IMAGE_SIZES=sizes, OPERATOR_TOKEN=TOKEN) as server:
        render, look, source, drop = runs("docs/guides/sizes.md", "sizes")
        token = bearer()["Authorization"].removeprefix("Bearer ")
        environ = {**server.environ, "OPERATOR_TOKEN": TOKEN, "TOKEN": token, "IMAGE_ID": image_id}
        assert "1 rendered, 0 of them from their largest variant" in succeeds(render, clone, environ)
        assert '"state":"done"' in succeeds(look.replace(TOUR_HOST, server.url), clone, environ)
        succeeds(source.replace(TOUR_HOST, server.url), clone, environ)
        assert (clone / "source.jpg").read_bytes().startswith(b"\xff\xd8")
        assert succeeds(drop, clone, environ).startswith("1 sources dropped")
        (bucket,) = runs("docs/guides/sizes.md", "bucket")
        succeeds(bucket, clone, environ)


def test_modes_of_earlier_files_are_changed_as_the_guide_says(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for name in ("b/processed/large/a.webp", "b/sources/a.jpg", ".health/probe"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch(mode=0o600)
    (text,) = runs("docs/guides/proxy.md", "modes")
    group = grp.getgrgid(os.getgid()).gr_name  # any user may set the own one
    succeeds(text.replace("/srv/imgsvc", str(root)).replace("www-data", group), tmp_path, os.environ)
    modes = {str(path.relative_to(root)): f"{path.stat().st_mode & 0o777:o}" for path in (root, *root.rglob("*"))}
    assert {name for name, mode in modes.items() if mode == "710"} == {".", "b", "b/processed", "b/processed/large"}
    assert modes["b/processed/large/a.webp"] == "640"
    assert modes["b/sources/a.jpg"] == modes[".health/probe"] == "600"


@pytest.mark.process
def test_guide_to_erasing(server: ServerProcess, clone: Path) -> None:
    commands, calls = runs("docs/guides/erasing.md", "erasing")
    (example,) = runs("docs/guides/erasing.md", "python")
    environ = {**server.environ, "OPERATOR_TOKEN": TOKEN}
    for picture in (make.jpeg(64, 48), make.jpeg(48, 64)):
        job = server.upload(picture, user="ann").json()["job_id"]
        assert server.job_ended(job)["status"] == "completed"
        said = succeeds(commands, clone, environ)
        assert "done: 1 images" in said and "Not reached: backups" in said and "ann" not in said
    said = succeeds(calls.replace(TOUR_HOST, server.url), clone, environ)
    assert said.count('"erasure_id"') == 4, said  # the new one, and three in the list
    done = subprocess.run(
        [sys.executable, "-c", example, server.url, TOKEN], capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    assert done.stdout.startswith("done {"), done.stderr


@pytest.mark.process
def test_prometheus_finds_metrics_and_rules(server: ServerProcess, clone: Path, tmp_path: Path) -> None:
    """promtool reads them too, where it is installed."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    texts = runs("docs/guides/monitoring.md", "prometheus")
    config, copy = (text.replace("/etc/prometheus", str(folder)) for text in texts)
    succeeds(copy, clone, server.environ)
    (folder / "prometheus.yml").write_text(config)
    (folder / "imgsvc-token").write_text(TOKEN)
    said = yaml.safe_load(config)
    rules = yaml.safe_load((folder / said["rule_files"][0]).read_text())
    assert rules == yaml.safe_load((files("imgsvc") / ALERTS).read_text())
    (scrape,) = said["scrape_configs"]
    assert f'job="{scrape["job_name"]}"' in json.dumps(rules).replace("\\", "")
    (target,) = scrape["static_configs"][0]["targets"]
    url = f"http://{target}/metrics".replace(TOUR_HOST, server.url)
    token = Path(scrape["authorization"]["credentials_file"]).read_text()
    answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"})
    assert len(list(text_string_to_metric_families(answer.text))) > 20
    if promtool := shutil.which("promtool"):
        subprocess.run([promtool, "check", "config", str(folder / "prometheus.yml")], check=True, capture_output=True)


@pytest.mark.process
async def test_authorization_server_is_asked_as_the_guide_says(clone: Path, tmp_path: Path) -> None:
    (call, drop) = runs("docs/guides/permissions.md", "authorization")
    first, body = call.strip().split("\n")
    async with authorization_server() as authorization:
        remote = {"AUTH_PERMISSIONS": "remote", "AUTH_API_URL": authorization.url}
        with InlineServer(tmp_path, **remote) as server:
            answer = await asyncio.to_thread(server.upload, make.jpeg(64, 48))
            assert answer.status_code == 202, answer.text
            (asked,) = authorization.asked
            assert (first, json.loads(body)) == (f"POST https://auth.example.org{asked.path}", asked.body)
            command = drop.replace("ORG", "default-org").replace("USER", "alice")
            assert "1" in await asyncio.to_thread(succeeds, command, clone, server.environ)


def test_policy_allows_what_the_storage_calls() -> None:
    (text,) = runs("docs/guides/s3.md", "policy")
    (objects, bucket) = json.loads(text)["Statement"]
    assert {objects["Effect"], bucket["Effect"]} == {"Allow"} and objects["Resource"] == f"{bucket['Resource']}/*"
    code = "".join(file.read_text() for file in (ROOT / "imgsvc/storage").glob("s3*.py"))
    called = set(re.findall(r"await client\.(\w+)\(", code)) - {"close", "generate_presigned_url"}  # no requests
    # What HeadObject, HeadBucket and ListObjectsV2 need: https://docs.aws.amazon.com/AmazonS3/latest/API
    named = {"head_object": "GetObject", "head_bucket": "ListBucket", "list_objects_v2": "ListBucket"}
    named["copy_object"] = "PutObject"  # and GetObject of what is copied
    needed = {f"s3:{named.get(name, name.title().replace('_', ''))}" for name in called}
    assert needed == {*objects["Action"], bucket["Action"]}


@pytest.mark.process
def test_token_with_the_limits_of_the_guide(server: ServerProcess) -> None:
    (text,) = runs("docs/guides/tokens.md", "limits")
    claims = json.loads(text)
    token = Tokens(SECRET, "HS256").issue(claims["sub"], imgsvc=claims["imgsvc"])

    def upload(bucket: str, data: bytes) -> httpx.Response:
        form, sent = {"bucket": bucket}, {"file": ("photo", data)}
        headers = {"Authorization": f"Bearer {token}"}
        return server.http.post(f"{server.url}/api/v1/images/upload", data=form, files=sent, headers=headers)

    assert upload("kiosk/2026", make.jpeg(64, 48)).headers["X-RateLimit-Limit"] == "10"
    assert upload("elsewhere", make.jpeg(64, 48)).status_code == 403
    assert upload("kiosk", make.palette_with_transparency()).status_code == 415
    assert upload("kiosk", make.jpeg(1500, 1500, quality=100)).status_code == 413
