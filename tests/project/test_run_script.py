"""`./run` before it installs anything, on systems that are not this one: what it finds there are stubs."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import typer.main

from imgsvc.cli import main

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
case "$2" in
  *sys.exit*) exit {too_old} ;;
  *python_version*) echo {version} ;;
esac
"""


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A checkout, and `bin`: all that its `./run` finds. What apt-get is asked for stands in `log`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "run").write_text((ROOT / "run").read_text())
    (tmp_path / "requirements-dev.lock").write_text("")
    for name in ("dirname", "sha256sum", "grep", "cat", "cut", "basename", "sed", "sleep", "tee"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    stub(tmp_path, "id", "#!/bin/sh\necho 0")
    stub(tmp_path, "dpkg-query", "#!/bin/sh\nexit 1")
    stub(tmp_path, "env", '#!/bin/sh\nshift\nexec "$@"')
    stub(tmp_path, "apt-get", f'#!/bin/sh\necho "$*" >>{tmp_path}/log\n[ "$1" = update ]')  # no package is there
    return tmp_path


def stub(system: Path, name: str, text: str) -> None:
    (system / "bin" / name).write_text(text)
    (system / "bin" / name).chmod(0o755)


def setup(system: Path) -> tuple[str, list[str]]:
    """What was said, and what apt-get was asked for."""
    command = ["/bin/bash", str(system / "run"), "setup"]
    done = subprocess.run(command, env={"PATH": str(system / "bin")}, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    log = system / "log"
    return done.stderr, log.read_text().splitlines() if log.exists() else []


def test_python_that_is_too_old_is_named_before_anything_is_installed(system: Path) -> None:
    """Ubuntu 22.04."""
    stub(system, "python3", PYTHON.format(too_old=1, version="3.10.12"))
    said, asked = setup(system)
    assert "Python 3.11 or later is needed, and this system has 3.10.12. Nothing was installed." in said
    assert asked == []


@pytest.mark.parametrize(("offered", "installs"), [("3.10.6-1~22.04", False), ("3.11.2-1+b1", True)])
def test_python_that_would_be_installed_is_looked_at_first(system: Path, offered: str, installs: bool) -> None:
    """A bare container."""
    stub(system, "apt-cache", f"#!/bin/sh\necho 'python3:'\necho '  Candidate: {offered}'")
    (system / "bin" / "dpkg").symlink_to("/usr/bin/dpkg")
    said, asked = setup(system)
    assert (f"this system has {offered}. Nothing was installed." in said) is not installs
    assert any(line.startswith("install") for line in asked) is installs


def test_packages_have_names_that_debian_and_ubuntu_know(system: Path) -> None:
    """Ubuntu has no libjpeg62-turbo-dev, and nothing here needs TIFF. Headers are those of the Python that is taken."""
    stub(system, "python3", PYTHON.format(too_old=1, version="3.10.12"))
    stub(system, "python3.12", PYTHON.format(too_old=0, version="3.12.3"))
    _, asked = setup(system)
    (install,) = [line for line in asked if line.startswith("install")]
    packages = install.rpartition("recommends ")[2].split()
    assert {"libjpeg-dev", "libseccomp2", "python3.12-dev", "python3.12-venv"} < set(packages)
    assert not {"libjpeg62-turbo-dev", "libtiff-dev", "python3-dev"} & set(packages)


def test_silence_of_compiling_is_broken(system: Path) -> None:
    text = (system / "run").read_text()
    function = text[text.index("say() {") : text.index("find_python() {")]
    function += text[text.index("with_progress() {") : text.index("apt_install() {")]
    function = function.replace("sleep 10", "sleep 0.05")
    script = f"set -euo pipefail\n{function}\nwith_progress compiling sleep 1; echo over"
    done = subprocess.run(
        ["/bin/bash", "-c", script], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "over\n")
    assert re.match(r"setup: compiling: [01] s so far\n", done.stderr)  # a whole second may have just begun
    failed = subprocess.run(["/bin/bash", "-c", script.replace("sleep 1;", "false;")], capture_output=True, timeout=30)
    assert failed.returncode == 1


def is_set_up(system: Path, python: str) -> None:
    """Without a setup here: what is there has the stamp of a finished one."""
    text = (system / "run").read_text().replace("    setup serve\n", "").replace(") setup serve; ", ") ")
    text = text.replace("    dask\n", "").replace(".venv-dask/", ".venv/")
    (system / "run").write_text(text)
    (system / ".venv" / "bin").mkdir(parents=True)
    (system / ".venv" / "bin" / "python").write_text(python)
    (system / ".venv" / "bin" / "python").chmod(0o755)


@pytest.mark.parametrize(
    ("command", "file", "line", "installs"),
    [
        ("serve", "config.toml", 'heic = "require"  # iPhones', True),
        ("serve", ".env", "IMGSVC_IMAGES_HEIC=require", True),
        ("serve", "config.toml", 'heic = "cage"               # require: the same', False),
        ("doctor", "config.toml", 'heic = "require"', False),
    ],
)
def test_heic_is_installed_where_a_setting_asks(
    system: Path, command: str, file: str, line: str, installs: bool
) -> None:
    is_set_up(system, '#!/bin/sh\n[ "$1" != -c ] || exit 1\necho "$*"')  # the package is not there
    (system / file).write_text(f"[images]\n{line}\n")
    done = run(system, command)
    assert ("--require-hashes -r requirements-heic.lock" in done.stdout) is installs
    assert done.returncode == 0 and done.stdout.endswith(f"-m imgsvc {command}\n")


def test_every_command_of_the_program_is_passed_on(system: Path) -> None:
    is_set_up(system, '#!/bin/sh\necho "$*"')
    for name in (*typer.main.get_command(main.app).commands, "--version"):  # type: ignore[attr-defined]
        done = run(system, name, "--help", "a b")
        assert (done.returncode, done.stdout) == (0, f"-m imgsvc {name} --help a b\n"), done.stderr


def test_an_unknown_command_is_named(system: Path) -> None:
    done = run(system, "docter")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("run: there is no command 'docter'\n\nusage: ./run COMMAND")
    assert not (system / "log").exists()


def run(system: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/bash", str(system / "run"), *arguments]
    return subprocess.run(command, env={"PATH": str(system / "bin")}, capture_output=True, text=True, timeout=30)
