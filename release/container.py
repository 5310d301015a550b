"""The container image as an OCI archive, made by podman or docker."""

import os
import platform
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

from release import Refused

ENGINES = ("podman", "docker")
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def engine() -> str | None:
    return next((name for name in ENGINES if shutil.which(name)), None)


def build(name: str, source: Path, folder: Path, version: str, seconds: int) -> Path:
    """Build the image of `source` with the engine `name` and save it in `folder`. Raises Refused.

    CONTAINER_STORE and CONTAINER_BUILD hold further flags for podman, where a machine needs them.
    """
    tag = f"localhost/imgsvc:{version}"
    machine = MACHINES.get(platform.machine(), platform.machine())
    file = folder / f"imgsvc-{version}-oci-{machine}.tar"
    store, more = (shlex.split(os.environ.get(variable, "")) for variable in ("CONTAINER_STORE", "CONTAINER_BUILD"))
    if name == "podman":
        _run([name, *store, "build", "--timestamp", str(seconds), *more, "-t", tag, "-f", "Containerfile", "."], source)
        _run([name, *store, "save", "--quiet", "--format", "oci-archive", "-o", str(file), tag], source)
    else:
        _run([name, "build", "-t", tag, "-f", "Containerfile", "."], source)
        _run([name, "save", "-o", str(file), tag], source)
    with tarfile.open(file) as archive:
        if "oci-layout" not in archive.getnames():
            raise Refused(f"This {name} does not write OCI archives; docker 25 or later and podman do.")
    return file


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "it gave no reason").splitlines()[-1]
        raise Refused(
            f"{command[0]} could not make the container archive: {reason}\n"
            "To release without it: ./run release --without-container"
        )
