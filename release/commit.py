"""The commit that is released: what must hold of it, and its files."""

import io
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from release import Refused


@dataclass(frozen=True, slots=True)
class Commit:
    version: str
    seconds: int  # when it was made, since 1970: the time of everything that is built from it (SOURCE_DATE_EPOCH)


def releasable(root: Path) -> Commit:
    """The commit that is checked out in `root`. Raises Refused unless all of it can be released as one version."""
    if not shutil.which("git"):
        raise Refused("git is not installed: a release is made of a commit.")
    if _git(root, "rev-parse", "--show-toplevel") is None:
        raise Refused(f"{root.name} is no git repository: a release is made of a commit.")
    changed = (_git(root, "status", "--porcelain") or "").splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed[:3]) + (" and more" if changed[3:] else "")
        raise Refused(f"The working tree has changes that are not committed ({names}). Commit or remove them first.")
    version = _version(root)
    _changelog_entry(root, version)
    tagged, head = _git(root, "rev-parse", "-q", "--verify", f"v{version}^{{commit}}"), _git(root, "rev-parse", "HEAD")
    if tagged and tagged != head:
        raise Refused(f"Version {version} was released from another commit (tag v{version}). Raise the version.")
    return Commit(version, int(_git(root, "log", "-1", "--format=%ct") or 0))


def export(root: Path, folder: Path) -> None:
    """The files of the commit, and no others, into `folder`."""
    archive = subprocess.check_output(["git", "-C", str(root), "archive", "HEAD"])
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)  # Python 3.11.2 has none
        files.extractall(folder)  # noqa: S202, filtered where Python can; git made it


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _version(root: Path) -> str:
    found = re.search(r'^__version__ = "(\d+\.\d+\.\d+\S*)"$', (root / "imgsvc/__init__.py").read_text(), re.MULTILINE)
    if not found:
        raise Refused('imgsvc/__init__.py has no line __version__ = "X.Y.Z".')
    return found[1]


def _changelog_entry(root: Path, version: str) -> None:
    text = (root / "CHANGELOG.md").read_text()
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    entry = re.search(rf"{heading}(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not entry:
        raise Refused(
            f'CHANGELOG.md has no entry for version {version}: it needs a heading "## [{version}] - YYYY-MM-DD".'
        )
    if not entry[1].strip():
        raise Refused(f"The entry of CHANGELOG.md for version {version} is empty.")
