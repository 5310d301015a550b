"""Containerfile and compose.yaml say what they must; `./run torture` builds and runs it where that can be done."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgsvc.settings import environment_names

ROOT = Path(__file__).parents[2]
LOCKS = {
    "others.lock",
    "simd.lock",
    "requirements-pillow.lock",
    "requirements-dask.lock",
    "requirements-heic.lock",
}  # the first two are requirements.lock, divided
CONTAINERFILE = (ROOT / "Containerfile").read_text()
CONTAINER_GUIDE = (ROOT / "docs/start/container.md").read_text()
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return parsed


def instructions(name: str) -> list[str]:
    """The arguments of each such instruction, with continued lines joined."""
    joined = re.sub(r"\\\n", " ", CONTAINERFILE)
    return re.findall(rf"^{name} +(.*)$", joined, re.MULTILINE)


def test_service_is_confined_and_published_on_loopback_only(compose: dict[str, Any]) -> None:
    service = compose["services"]["imgsvc"]
    assert "profiles" not in service
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "10001:10001"
    assert {"mem_limit", "pids_limit", "ulimits", "logging", "restart", "stop_grace_period"} <= set(service)
    assert service["volumes"] == ["data:/data"] and "data" in compose["volumes"]
    for other in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in other.get("ports", []))
        assert {"mem_limit", "pids_limit", "logging"} <= set(other) and "privileged" not in other


def test_image_holds_the_library_of_the_cage() -> None:
    """A slim base image has it only if something else needs it."""
    assert "libseccomp2" in CONTAINERFILE.rpartition("FROM ")[2]


def test_any_user_of_group_0_can_write_the_volume() -> None:
    """OpenShift runs each project as a random user with the group 0."""
    assert "install -d -o imgsvc -g 0 -m 770 /data" in CONTAINERFILE


def test_old_podman_compose_understands_it(compose: dict[str, Any]) -> None:
    """1.0.3, of Debian 12: it takes names of files only, and of health checks lists and texts."""
    for service in compose["services"].values():
        assert all(isinstance(name, str) for name in [service.get("env_file", "")])
        assert isinstance(service.get("build", {}), dict) and isinstance(service.get("ports", []), list)
    assert compose["services"]["imgsvc"]["env_file"] == ".env"
    for paper in ("README.md", "docs/start/container.md", "compose.yaml"):
        assert "touch .env" in (ROOT / paper).read_text()


@pytest.mark.skipif(not shutil.which("podman-compose"), reason="podman-compose is not installed")
def test_podman_compose_starts_the_service_as_the_papers_say(tmp_path: Path) -> None:
    """The one that is installed, up to where it would call podman."""
    (line,) = re.findall(r"^docker compose up --build +#.*(podman-compose .*)$", CONTAINER_GUIDE, re.MULTILINE)
    for name in ("compose.yaml", "Containerfile"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".env").touch()
    podman = tmp_path / "podman"
    podman.write_text('#!/bin/sh\n[ "$1" = --version ] && echo podman version 4.3.1\nexit 0\n')
    podman.chmod(0o755)
    command = line.replace("podman-compose", f"podman-compose --podman-path {podman} --dry-run")
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_SECONDS)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "-p 127.0.0.1:8000:8000" in said and "--read-only" in said, said
    assert re.findall(r"--name=\S+_(\w+)_1", said) == ["imgsvc"], said


def test_further_servers_are_started_only_when_asked_for(compose: dict[str, Any]) -> None:
    others = {name: service for name, service in compose["services"].items() if name != "imgsvc"}
    profiles = {name: service["profiles"][0] for name, service in others.items()}
    assert profiles == {"redis": "redis", "s3": "s3", "scheduler": "dask", "worker": "dask"}
    others = {name: service for name, service in others.items() if "build" not in service}
    assert all(re.fullmatch(r"docker\.io/\S+:[\w.-]*\d[\w.-]*", service["image"]) for service in others.values())
    assert "depends_on" not in compose["services"]["imgsvc"]


def test_what_compose_says_of_settings_is_true(compose: dict[str, Any]) -> None:
    """Names in its comments too, since they are copied from there."""
    text = (ROOT / "compose.yaml").read_text()
    known = {name for _, _, name in environment_names()}
    named = set(re.findall(r"\b(?:AWS|IMGSVC|JWT|REDIS|STORAGE)_[A-Z_0-9]+\b", text))
    assert {name.removesuffix("_FILE") for name in named} <= known
    assert {"REDIS_URL", "AWS_ENDPOINT_URL"} <= named
    hosts = re.findall(r"(?:redis|http)://(\w+):(\d+)", text)
    assert {host for host, _ in hosts} == {"redis", "s3"} <= set(compose["services"])
    assert f"127.0.0.1:{dict(hosts)['s3']}:8333" in compose["services"]["s3"]["ports"]


def test_object_storage_without_keys_does_not_start(compose: dict[str, Any]) -> None:
    """Without keys it would serve anyone. Run by a real shell, whose `exec` here says what would be started."""
    shell, flag, script = compose["services"]["s3"]["entrypoint"]
    script = f"{script.replace('$$', '$')}".replace("exec", "echo")
    for secret, status in (("", 2), ("something", 0)):
        environ = {"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY": secret}
        done = subprocess.run([shell, flag, script], env=environ, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert done.stdout == ("/entrypoint.sh mini -dir=/data\n" if secret else "")


def test_heaps_are_few_however_the_service_is_started() -> None:
    assert "MALLOC_ARENA_MAX=2" in " ".join(instructions("ENV")).split()
    assert "Environment=MALLOC_ARENA_MAX=2" in (ROOT / "docs" / "guides" / "installing.md").read_text().splitlines()
    assert "export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-2}" in (ROOT / "run").read_text().splitlines()


def test_compose_and_containerfile_agree(compose: dict[str, Any]) -> None:
    service = compose["services"]["imgsvc"]
    (check,) = re.findall(r"CMD (\[.*\])", instructions("HEALTHCHECK")[0])
    assert ["CMD", *yaml.safe_load(check)] == service["healthcheck"]["test"]
    assert all(f"--{name}=" in instructions("HEALTHCHECK")[0] for name in ("interval", "timeout", "start-period"))
    assert instructions("VOLUME") == ["/data"] and instructions("EXPOSE") == ["8000"]
    assert "--uid 10001" in CONTAINERFILE and "--gid 10001" in CONTAINERFILE and instructions("USER") == ["imgsvc"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert yaml.safe_load(instructions("ENTRYPOINT")[0]) == ["tini", "--", "imgsvc"]
    assert service["build"]["args"]["SIMD"] == re.search(r"^ARG SIMD=(.*)$", CONTAINERFILE, re.MULTILINE)[1]  # type: ignore[index]


def test_what_is_copied_is_there_and_nothing_else_is() -> None:
    copied = [parts.split()[:-1] for parts in instructions("COPY") if not parts.startswith("--from")]
    assert sorted(name for names in copied for name in names) == sorted(
        [
            "requirements.lock",
            "requirements-pillow.lock",
            "requirements-dask.lock",
            "requirements-heic.lock",
            "pyproject.toml",
            "README.md",
            "LICENSE",
            "imgsvc",
        ]
    )
    assert all((ROOT / name).exists() for names in copied for name in names)


def test_everything_is_installed_from_the_lock_by_its_hash() -> None:
    installed = re.findall(r"\$install .*", CONTAINERFILE)
    assert len(installed) == 5 and "--no-deps --require-hashes" in CONTAINERFILE
    assert all(set(re.findall(r"-r (\S+)", line)) <= LOCKS for line in installed)
    installs = re.findall(r"pip [^&]*install [^&]*", re.sub(r"\\\n", " ", CONTAINERFILE))
    assert len(installs) == 2 and all("--no-deps" in line and "--no-cache-dir" in line for line in installs)
    lock = (ROOT / "requirements.lock").read_text()
    assert "pillow-simd==" in lock and not re.search(r"^pillow(-heif)?==", lock, re.MULTILINE)
    assert "pillow-avif-plugin==" in lock and "pillow-heif==" in (ROOT / "requirements-heic.lock").read_text()


def test_compiler_stays_in_the_first_stage() -> None:
    build, final = CONTAINERFILE.split("\nFROM ${PYTHON}\n")
    assert "gcc" in build
    assert not re.search(r"gcc|-dev|pip install|binutils", final)
    assert len(re.findall(r"^(RUN|COPY)", final, re.MULTILINE)) == 2, "each is a layer"


def test_machines_of_a_cluster_are_confined_too(compose: dict[str, Any]) -> None:
    for name in ("scheduler", "worker"):
        service = compose["services"][name]
        assert service["image"] == "imgsvc:dask" and service["build"]["args"]["DASK"] == "1"
        assert "env_file" not in service and set(service["environment"]) <= {name for _, _, name in environment_names()}
        assert service["command"] == [name] and service["healthcheck"] == {"disable": True}
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["user"] == "10001:10001"
        assert service["security_opt"] == ["no-new-privileges:true"] and "ports" not in service


def test_default_image_holds_no_dask(compose: dict[str, Any]) -> None:
    """By its lock, and since the build argument is empty unless it is given."""
    locked = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"^(distributed|dask|tornado|cloudpickle)==", locked, re.MULTILINE)
    assert re.search(r"^ARG DASK=$", CONTAINERFILE, re.MULTILINE)
    assert 'if [ -n "$DASK" ]; then $install -r requirements-dask.lock ; fi' in CONTAINERFILE
    assert compose["services"]["imgsvc"]["build"]["args"]["DASK"] == "${WITH_DASK:-}"


def test_lock_of_dask_adds_to_the_other_and_repeats_nothing_of_it() -> None:
    names = [
        set(re.findall(r"^([a-z][\w.-]*)==", (ROOT / f"requirements{end}.lock").read_text(), re.MULTILINE))
        for end in ("", "-dask")
    ]
    assert "distributed" in names[1] and not names[0] & names[1]
