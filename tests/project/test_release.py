"""What `./run release` makes, and what it refuses; the container is built for real by `./run torture`."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from imgsvc import __version__
from release import ROOT, Refused, checksums, client, commit, container, packages, sbom
from release.__main__ import make
from tests.support.papers import runs, shell

SECONDS = 1_764_115_200  # 2025-11-26
FILES = {
    "imgsvc/__init__.py": '__version__ = "1.2.3"\n',
    "CHANGELOG.md": "## [Unreleased]\n\n## [1.2.3] - 2026-11-26\n\n- A change.\n\n## [1.2.2] - 2026-11-01\n",
    "README.md": "# imgsvc\n",
    ".gitignore": "/dist/\n",
}
ENGINE = """#!/bin/sh
echo "$(basename $0) $*" >>{log}
for word in "$@"; do
  [ "$previous" = -o ] && cp {archive} "$word"
  previous=$word
done
exit {status}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clone of one commit that can be released, as far as checks go."""
    needs_git()
    root = tmp_path / "clone"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q")
    committed(root)
    return root


def needs_git() -> None:
    if not shutil.which("git"):
        pytest.skip("git is not installed")


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    environ = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.check_output(["git", "-C", str(root), *who, *arguments], env=environ, text=True)


def committed(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "Change")


def test_clean_commit_with_an_entry_is_releasable(repository: Path) -> None:
    found = commit.releasable(repository)
    assert found == commit.Commit("1.2.3", int(git(repository, "log", "-1", "--format=%ct")))
    git(repository, "tag", "v1.2.3")
    assert commit.releasable(repository) == found


def changed(root: Path) -> None:
    (root / "README.md").write_text("more")


def untracked(root: Path) -> None:
    (root / "notes.txt").write_text("")


def raised(root: Path) -> None:
    (root / "imgsvc/__init__.py").write_text('__version__ = "1.3.0"\n')
    committed(root)


def emptied(root: Path) -> None:
    (root / "CHANGELOG.md").write_text("## [1.2.3] - 2026-11-26\n\n## [1.2.2] - 2026-11-01\n\n- Older.\n")
    committed(root)


def undated(root: Path) -> None:
    (root / "CHANGELOG.md").write_text("## [1.2.3]\n\n- A change.\n")
    committed(root)


def tagged_before(root: Path) -> None:
    git(root, "tag", "v1.2.3")
    committed(root)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (changed, "changes that are not committed (README.md)"),
        (untracked, "changes that are not committed (notes.txt)"),
        (raised, "CHANGELOG.md has no entry for version 1.3.0"),
        (emptied, "The entry of CHANGELOG.md for version 1.2.3 is empty"),
        (undated, 'a heading "## [1.2.3] - YYYY-MM-DD"'),
        (tagged_before, "was released from another commit (tag v1.2.3)"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_refuses_with_a_sentence(repository: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(repository)
    with pytest.raises(Refused, match=re.escape(words)):
        make(repository)
    assert not (repository / "dist").exists()


def test_folder_without_a_commit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_git()
    with pytest.raises(Refused, match="no git repository"):
        commit.releasable(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="git is not installed"):
        commit.releasable(tmp_path)


def test_this_version_has_an_entry() -> None:
    assert re.search(rf"^## \[{re.escape(__version__)}\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert (ROOT / "CHANGELOG.md").read_text().count("\n## [Unreleased]\n") == 1


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (file,) = packages.build(ROOT, tmp_path_factory.mktemp("wheel"), SECONDS, "wheel")
    return file


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    assert wheel.name == f"imgsvc-{__version__}-py3-none-any.whl"
    ours = {str(file.relative_to(ROOT)) for file in (ROOT / "imgsvc").rglob("*") if file.is_file()}
    ours = {name for name in ours if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = archive.read(f"imgsvc-{__version__}.dist-info/METADATA").decode()
    assert held == ours
    for name in ("jobs/table/queries.sql", "telemetry/alerts.yml", "http/dashboard/static/overview.js"):
        assert (files("imgsvc") / name).is_file() and f"imgsvc/{name}" in held
    assert f"\nVersion: {__version__}\n" in about and "\nLicense-Expression: MIT\n" in about


def test_client_alone_works_in_an_empty_environment(tmp_path: Path) -> None:
    """With httpx and what that needs, and nothing else of this environment."""
    wheel = client.build(ROOT, tmp_path, __version__, SECONDS)
    (tmp_path / "again").mkdir()
    assert client.build(ROOT, tmp_path / "again", __version__, SECONDS).read_bytes() == wheel.read_bytes()
    place = tmp_path / "empty"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
        about = archive.read(f"imgsvc_client-{__version__}.dist-info/METADATA").decode()
    assert re.findall(r"^Requires-Dist: (.*)$", about, re.MULTILINE) == ["httpx>=0.28"]
    for name in ("httpx", "httpcore", "h11", "anyio", "certifi", "idna", "sniffio", "typing_extensions"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            origin = Path(spec.origin)
            (place / (origin.name if origin.stem == name else name)).symlink_to(
                origin if origin.stem == name else origin.parent
            )
    script = (
        "import sys\nfrom imgsvc_client import AsyncClient, Client, verify_webhook\n"
        "Client('http://127.0.0.1:9', 'token').close()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'imgsvc']"
    )
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(place)}
    command = [sys.executable, "-S", "-s", "-W", "error", "-c", script]
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


def test_wheel_is_the_same_each_time(wheel: Path, tmp_path: Path) -> None:
    (again,) = packages.build(ROOT, tmp_path, SECONDS, "wheel")
    assert again.read_bytes() == wheel.read_bytes()


def test_sdist_holds_the_files_of_the_commit(repository: Path, tmp_path: Path) -> None:
    """Of those that lie about in the working tree, none."""
    for name in ("pyproject.toml", "LICENSE", "run"):
        shutil.copy(ROOT / name, repository / name)
    committed(repository)
    untracked(repository)
    source, made = tmp_path / "source", tmp_path / "made"
    source.mkdir()
    commit.export(repository, source)
    (file,) = packages.build(source, made, SECONDS, "sdist")
    with tarfile.open(file) as archive:
        assert archive.getmember("imgsvc-1.2.3/run").mode & 0o111, "./run works in what is unpacked from it"
        held = {name.partition("/")[2] for name in archive.getnames()}
        assert {member.mtime for member in archive.getmembers()} == {SECONDS}
    assert held == {*FILES, "pyproject.toml", "LICENSE", "run", "PKG-INFO"}


def test_what_can_not_be_built_is_a_sentence(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="could not be built"):
        packages.build(repository, tmp_path / "made", SECONDS)


@pytest.fixture(scope="module")
def bom() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(sbom.document(ROOT, __version__, SECONDS))
    return document


def test_sbom_is_valid(bom: dict[str, Any]) -> None:
    """By the schema that CycloneDX publishes, in the copy that its library ships."""
    folder, place = files("cyclonedx.schema") / "_res", "http://cyclonedx.org/schema/"
    names = [f"{name}.SNAPSHOT.schema.json" for name in ("bom-1.6", "spdx", "jsf-0.82")]
    schemas = {f"{place}{name}": json.loads((folder / name).read_text()) for name in names}
    known = jsonschema_rs.Registry(list(schemas.items()))
    validator = jsonschema_rs.Draft7Validator(schemas[f"{place}{names[0]}"], registry=known)
    assert [error.message for error in validator.iter_errors(bom)] == []
    assert not validator.is_valid({**bom, "components": [{"name": "x"}]})
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")


def test_sbom_lists_what_the_lock_lists(bom: dict[str, Any]) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE))
    assert {one["name"]: one["version"] for one in bom["components"]} == pins and len(pins) > 40
    hashes = [entry["content"] for one in bom["components"] for entry in one["externalReferences"][0]["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", lock))
    optional = {one["name"] for one in bom["components"] if one["scope"] == "optional"}
    assert optional == set(re.findall(r"^([\w.-]+)==\S+ ; ", lock, re.MULTILINE))
    assert all(one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in bom["components"])


def test_sbom_says_who_depends_on_whom(bom: dict[str, Any]) -> None:
    graph = {one["ref"].partition("==")[0]: one.get("dependsOn", []) for one in bom["dependencies"]}
    direct = {ref.partition("==")[0] for ref in graph["imgsvc"]}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert direct >= {re.split(r"[\[><= ]", one)[0] for one in wanted}
    assert any(ref.startswith("botocore==") for ref in graph["aiobotocore"])
    licensed = [one for one in bom["components"] if "licenses" in one]
    assert len(licensed) > len(bom["components"]) / 2


def test_sbom_is_the_same_each_time(bom: dict[str, Any]) -> None:
    assert json.loads(sbom.document(ROOT, __version__, SECONDS)) == bom


def test_checksums_are_what_sha256sum_reads(tmp_path: Path) -> None:
    for name in ("b.whl", "a.tar.gz"):
        (tmp_path / name).write_text(name)
    assert checksums.write(tmp_path).read_text().split()[1::2] == ["a.tar.gz", "b.whl"]
    (check,) = runs("docs/guides/installing.md", "release")
    assert shell(check, tmp_path, os.environ).returncode == 0
    (tmp_path / "b.whl").write_text("other")
    assert shell(check, tmp_path, os.environ).returncode == 1


@pytest.fixture
def releasable(repository: Path) -> Path:
    """A repository from which packages and SBOM can be made too."""
    for name in ("pyproject.toml", "LICENSE", "requirements.lock", "imgsvc/client/__init__.py"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text((ROOT / name).read_text())
    committed(repository)
    return repository


def engines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str, status: int = 0, form: str = "oci-layout"
) -> Path:
    """Make these the only container engines; they write an archive and what they were asked for, which is returned."""
    log, archive, tools = folder / "engine.log", folder / "engine.tar", folder / "bin"
    (folder / form).write_text("{}")
    with tarfile.open(archive, "w") as made:
        made.add(folder / form, form)
    tools.mkdir()
    for path in (Path(folder, name) for name in ("git", "sh", "cp", "basename") for folder in ("/usr/bin", "/bin")):
        if path.exists() and not (tools / path.name).exists():  # git may be missing: some releases come before it
            (tools / path.name).symlink_to(path)
    for name in names:
        (tools / name).write_text(ENGINE.format(log=log, archive=archive, status=status))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    return log


def test_everything_is_made_and_listed_in_the_checksums(
    releasable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = engines(tmp_path, monkeypatch, "podman", "docker")
    (releasable / "dist").mkdir()
    (releasable / "dist" / "imgsvc-1.2.2.tar.gz").write_text("of an earlier release")
    made = {file.name for file in make(releasable)}
    (archive,) = (name for name in made if name.startswith("imgsvc-1.2.3-oci-"))
    assert made == {
        "SHA256SUMS",
        "imgsvc-1.2.3-py3-none-any.whl",
        "imgsvc-1.2.3.cdx.json",
        "imgsvc-1.2.3.tar.gz",
        "imgsvc_client-1.2.3-py3-none-any.whl",
        archive,
    }
    sums = (releasable / "dist" / "SHA256SUMS").read_text()
    assert set(sums.split()[1::2]) == made - {"SHA256SUMS"}
    build, save = log.read_text().splitlines()
    seconds = commit.releasable(releasable).seconds
    assert build.startswith(f"podman build --timestamp {seconds} ") and "--format oci-archive" in save


def test_without_an_engine_it_says_so(
    releasable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engines(tmp_path, monkeypatch)
    assert not [file for file in make(releasable) if "-oci-" in file.name]
    assert "no container archive was made: neither podman nor docker is installed" in capsys.readouterr().err


def test_container_can_be_left_out(
    releasable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = engines(tmp_path, monkeypatch, "podman")
    assert not [file for file in make(releasable, with_container=False) if "-oci-" in file.name]
    assert not log.exists() and "container" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "form", "words"),
    [(125, "oci-layout", "docker could not make the container archive"), (0, "repositories", "docker 25 or later")],
)
def test_engine_that_fails_ends_the_release(
    status: int, form: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines(tmp_path, monkeypatch, "docker", status=status, form=form)
    assert container.engine() == "docker"
    with pytest.raises(Refused, match=words):
        container.build("docker", tmp_path, tmp_path, "1.2.3", SECONDS)


def test_command_refuses_in_one_line(tmp_path: Path) -> None:
    """As a process: `./run release` in a folder that is no repository."""
    needs_git()
    code = "import pathlib, release.__main__ as m; m.ROOT = pathlib.Path.cwd(); raise SystemExit(m.main())"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(r"release: \S+ is no git repository: a release is made of a commit\.\n", done.stderr)
