"""The wheel of the client alone: `imgsvc/client` as the package `imgsvc_client`, which needs httpx and no compiler."""

import shutil
import tempfile
from pathlib import Path

from release import packages

PROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "imgsvc-client"
version = "{version}"
description = "Client of the image service imgsvc, async and sync."
requires-python = ">=3.11"
license = "MIT"
dependencies = ["httpx>=0.28"]

[tool.hatch.build.targets.wheel]
packages = ["imgsvc_client"]
"""


def build(source: Path, folder: Path, version: str, seconds: int) -> Path:
    """Build the wheel from the project in `source` into `folder`. Raises Refused."""
    with tempfile.TemporaryDirectory(prefix="imgsvc-client-") as name:
        project, made = Path(name, "project"), Path(name, "made")
        shutil.copytree(
            source / "imgsvc" / "client", project / "imgsvc_client", ignore=shutil.ignore_patterns("__pycache__")
        )
        (project / "imgsvc_client" / "py.typed").touch()
        (project / "pyproject.toml").write_text(PROJECT.format(version=version))
        made.mkdir()
        (wheel,) = packages.build(project, made, seconds, "wheel")
        return Path(shutil.copy(wheel, folder))
