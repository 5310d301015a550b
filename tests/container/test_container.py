"""The container, built and run for real: read-only, without capabilities, with 512 MB. By `./run torture` only.

It needs buildah and podman, and the base image or a way to pull it. CONTAINER_STORE holds flags for both, and
CONTAINER_RUN some for `podman run`, where a machine needs them.
"""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from fixtures import make
from release import container
from tests.support.server_process import until

pytestmark = [
    pytest.mark.torture,
    pytest.mark.process,
    pytest.mark.skipif(
        not (shutil.which("buildah") and shutil.which("podman")), reason="buildah and podman are needed for this"
    ),
]
ROOT = Path(__file__).parents[2]
IMAGE, NAME, VOLUME = "localhost/imgsvc-torture", "imgsvc-torture", "imgsvc-torture"
RELEASED = "localhost/imgsvc:0.0.0"
PLAIN = "localhost/imgsvc-torture-plain"  # without pillow-simd
STORE, ENGINE, RUN = (shlex.split(os.environ.get(f"CONTAINER_{name}", "")) for name in ("STORE", "ENGINE", "RUN"))
OWN_MEGABYTES = 115  # of the image, beyond its base; AVIF takes 13 of them
PLAIN_MEGABYTES = 125  # of the image without pillow-simd: Pillow's wheel brings libraries of its own
STOP_SECONDS = 15
CONFINED = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "-m=512m"]


def buildah(*arguments: str) -> str:
    return _out(["buildah", *STORE, *arguments], 1800)


def podman(*arguments: str) -> str:
    return _out(["podman", *STORE, *ENGINE, *arguments], 300)


def _out(line: list[str], seconds: float) -> str:
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize("engine", container.ENGINES)
def test_engine_writes_an_oci_archive(engine: str, tmp_path: Path) -> None:
    """`./run release` with an image that needs no base."""
    if not shutil.which(engine) or subprocess.run([engine, *STORE, "info"], capture_output=True).returncode:
        pytest.skip(f"{engine} is not installed, or does not run")
    (tmp_path / "Containerfile").write_text("FROM scratch\nCOPY Containerfile /\n")
    file = container.build(engine, tmp_path, tmp_path, "0.0.0", 1_764_115_200)
    with tarfile.open(file) as archive:
        index = json.load(archive.extractfile("index.json") or io.BytesIO())
        assert len(index["manifests"]) == 1 and "oci-layout" in archive.getnames()
    subprocess.run([engine, *STORE, "rmi", "-f", RELEASED], capture_output=True)


def size(image: str) -> int:
    return int(podman("image", "inspect", "--format", "{{.Size}}", image))


def base_image() -> str:
    """What the Containerfile builds on, which is here or can be pulled."""
    base = next(
        line.partition("=")[2] for line in (ROOT / "Containerfile").read_text().splitlines() if "ARG PY" in line
    )
    have = subprocess.run(["buildah", *STORE, "pull", "-q", "--policy=missing", base], capture_output=True)
    if have.returncode:
        pytest.skip(f"{base} is not here, and can't be pulled")
    return base


def built(tag: str, *arguments: str, megabytes: int = OWN_MEGABYTES) -> str:
    """The image of this tag, of at most so many megabytes beyond its base."""
    base = base_image()
    more = shlex.split(os.environ.get("CONTAINER_BUILD", ""))
    buildah("bud", "--layers", "--format=docker", *more, *arguments, "-t", tag, ".")
    assert size(tag) - size(base) < megabytes * 1_000_000
    return tag


@contextmanager
def service(image: str) -> Iterator[str]:
    """Its URL."""
    podman("run", "-d", "--name", NAME, *RUN, *CONFINED, "-p=127.0.0.1::8000", "-v", f"{VOLUME}:/data", image)
    try:
        yield f"http://{podman('port', NAME, '8000')}"
    finally:
        podman("rm", "-f", NAME)
        podman("volume", "rm", "-f", VOLUME)


@pytest.fixture(scope="module")
def image() -> str:
    return built(IMAGE)


@pytest.fixture
def url(image: str) -> Iterator[str]:
    with service(image) as url:
        yield url


def ready(url: str) -> None:
    def answers() -> bool:
        try:
            return httpx.get(f"{url}/api/v1/health").status_code == 200
        except httpx.HTTPError:
            return False

    until(answers, 60)


def completed(job: str) -> bool:
    return bool(httpx.get(job).json()["status"] == "completed")


def inside(*command: str) -> str:
    return podman("exec", NAME, *command)


def uploaded(url: str, photo: bytes) -> httpx.Response:
    token = {"Authorization": f"Bearer {inside('imgsvc', 'token', '--sub', 'me')}"}
    files = {"file": ("p", photo)}
    return httpx.post(f"{url}/api/v1/images/upload", data={"bucket": "b"}, files=files, headers=token, timeout=60)


def test_container(url: str) -> None:
    ready(url)
    assert inside("id", "-u") == "10001"
    assert "CapEff:\t0000000000000000" in inside("cat", "/proc/1/status")
    assert subprocess.run(["podman", *STORE, *ENGINE, "exec", NAME, "touch", "/x"], capture_output=True).returncode
    assert inside("sh", "-c", "command -v gcc cc || true") == ""
    assert inside("imgsvc", "health") == "alive"
    assert "✗" not in inside("imgsvc", "doctor")
    assert "✗" not in inside("imgsvc", "smoke", "http://127.0.0.1:8000")
    check = ["podman", *STORE, *ENGINE, "healthcheck", "run", NAME]  # it has five seconds, however busy the machine is
    until(lambda: subprocess.run(check, capture_output=True).returncode == 0, 60)

    inside("sh", "-c", "(sleep 0.1 &)")  # its parent is gone by the time it ends
    until(lambda: inside("sh", "-c", "grep -l '^Name:.sleep' /proc/[0-9]*/status || true") == "", 10)

    photo = make.jpeg(4032, 3024)
    sent = [uploaded(url, photo) for _ in range(6)]
    assert [answer.status_code for answer in sent] == [202] * 6
    podman("kill", "-s", "KILL", NAME)
    podman("start", NAME)
    url = f"http://{podman('port', NAME, '8000')}"
    ready(url)
    for answer in sent:
        job = f"{url}{answer.json()['status_url']}"
        until(partial(completed, job), 120)

    began = time.monotonic()
    podman("stop", "-t", str(STOP_SECONDS), NAME)
    assert time.monotonic() - began < STOP_SECONDS
    assert podman("inspect", "--format", "{{.State.ExitCode}}", NAME) == "0"


PICTURE = """
import io, sys, tempfile
from pathlib import Path
from imgsvc.imaging import simd
sys.stderr.write(f"chosen {simd.choose()}\\n")
from PIL import Image
from imgsvc.imaging.pipeline import render
from imgsvc.imaging.recipe import Recipe, Variant
folder = Path(tempfile.mkdtemp())
Image.linear_gradient("L").resize((900, 700)).convert("RGB").save(folder / "source", "JPEG")
recipe = Recipe((Variant("a", 600, 85, 2),), 10**7, 1)
with open(folder / "source", "rb") as source:
    made = render(source, "image/jpeg", recipe, {"a": io.BytesIO()})
print(made.variants[0].width, made.variants[0].height)
"""


@pytest.mark.skipif(not shutil.which("qemu-x86_64-static"), reason="qemu-user-static is not installed")
@pytest.mark.parametrize(("processor", "build"), [("Nehalem", "sse4_1"), ("Haswell", "avx2"), ("core2duo", "")])
def test_image_runs_on_processors_of_each_kind(image: str, processor: str, build: str) -> None:
    """One render, and a doctor, by an emulated processor; on one that is too old, one sentence and status 2."""
    mounted = ["-v", f"{shutil.which('qemu-x86_64-static')}:/qemu:ro", "--entrypoint=/qemu"]
    line = ["run", "--rm", "--no-healthcheck", *RUN, *CONFINED, *mounted, image, "-cpu", processor]

    def emulated(*arguments: str) -> tuple[int, str, list[str]]:
        """The status, the output, and the lines of standard error but for what QEMU says of its own."""
        command = ["podman", *STORE, *ENGINE, *line, "/opt/imgsvc/bin/python", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        errors = [line for line in done.stderr.splitlines() if not line.startswith("qemu: warning")]
        return done.returncode, done.stdout, errors

    status, said, errors = emulated("-m", "imgsvc", "doctor")
    if not build:
        assert (status, said, len(errors)) == (2, "", 1) and "SSE4.1" in errors[0], (said, errors)
        return
    assert "pillow-simd" in said and status in (0, 1), (said, errors)
    assert emulated("-c", PICTURE) == (0, "600 467\n", [f"chosen {build}"])


def test_archive_of_a_release_is_loaded_and_runs(tmp_path: Path) -> None:
    """What `./run release` puts into dist/, as another machine gets it."""
    base_image()
    archive = container.build("podman", ROOT, tmp_path, "0.0.0", 1_764_115_200)
    podman("rmi", "-f", RELEASED)
    podman("load", "-i", str(archive))
    try:
        with service(RELEASED) as url:
            ready(url)
            answer = uploaded(url, make.jpeg(640, 480))
            until(partial(completed, f"{url}{answer.json()['status_url']}"), 60)
    finally:
        podman("rmi", "-f", RELEASED)


def with_requirements(folder: Path, *names: str) -> Path:
    """Copies of these packages of this environment, and of what they need, in a folder for PYTHONPATH."""
    left, done = list(names), set[str]()
    while left:
        one = metadata.distribution(left.pop())
        for file in one.files or []:
            if one.name not in done and ".." not in file.parts and file.suffix != ".pyc":
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), folder / file)
        needed = [re.match(r"[\w.-]+", line) for line in one.requires or [] if ";" not in line and one.name not in done]
        left += [match[0] for match in needed if match]
        done.add(one.name)
    return folder


def test_image_without_simd(tmp_path: Path) -> None:
    """Plain Pillow passes the tests of the pictures, and takes an upload."""
    plain = built(PLAIN, "--build-arg", "SIMD=none", megabytes=PLAIN_MEGABYTES)
    packages = with_requirements(tmp_path / "packages", "pytest", "pytest-asyncio")
    mounts = ["-v", f"{ROOT}:/source:ro", "-v", f"{packages}:/packages:ro", "-e", "PYTHONPATH=/packages", "-w=/source"]
    line = ["run", "--rm", "--no-healthcheck", *RUN, *CONFINED, *mounts, "--entrypoint", "python", plain]
    print(_out(["podman", *STORE, *ENGINE, *line, *["-m", "pytest", "-p", "no:cacheprovider", "tests/imaging"]], 1800))
    with service(plain) as url:
        ready(url)
        assert "this is Pillow" in inside("imgsvc", "doctor")
        answer = uploaded(url, make.jpeg(640, 480))
        until(partial(completed, f"{url}{answer.json()['status_url']}"), 60)
