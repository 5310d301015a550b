"""What a backup looks like on disk.

    imgsvc-backup.txt        says what this folder is; it marks the folder as ours
    manifest.json            written last: what it names is complete
    database-{moment}.db     one SQLite file without a log; it holds the digest of every file below
    variants/{bucket}/{key}  as they are stored, whichever backend they came from
    staged/{name}            uploads that are not yet processed
    secrets/{digest}         mode 0600; the manifest says which is which

A second backup into the same folder copies only what is new. Nothing that the manifest of before needs is touched
until the new manifest has taken its place in one rename.
"""

import os
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ...storage.durable_files import partial_of, sync_folder, write_file
from ..progress import MaintenanceFailed

FORMAT = 1
MARKER, MANIFEST = "imgsvc-backup.txt", "manifest.json"
VARIANTS, STAGED, SECRETS = "variants", "staged", "secrets"
SECRET_FILES = ("jwt_secret", "operator_token", "url_key")
WORDS = """\
This folder is a backup of imgsvc. It is complete when manifest.json is there.
It holds the secrets of the service and uploads that may carry GPS data: keep it as private as the service itself.
To restore it, stop the service and run: imgsvc storage restore THIS_FOLDER
"""


class Whole(BaseModel):
    """Files of one kind together."""

    model_config = ConfigDict(frozen=True)

    files: int = 0
    bytes: int = 0


class Manifest(BaseModel):
    """`absent` names what the service itself had lost; `elsewhere` counts files that stayed in their backends."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    version: str
    taken_at: str
    database: str
    database_bytes: int
    database_sha256: str
    variants: Whole
    staged: Whole
    elsewhere: int = 0
    absent: tuple[str, ...] = ()
    secrets: dict[str, str] = {}


class BackupFolder:
    """Raises OSError wherever the disk refuses."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def variant(self, bucket: str, key: str) -> Path:
        """A backup may have been in other hands: what its database names must not lead out of it."""
        name = f"{bucket}/{key}"
        if name.startswith("/") or os.path.normpath(name) != name or name.split("/")[0] == "..":
            raise MaintenanceFailed("The backup names a file outside of itself.")
        return self.root / VARIANTS / name

    def staged(self, name: str) -> Path:
        return self._plain(STAGED, name)

    def secret(self, digest: str) -> Path:
        return self._plain(SECRETS, digest)

    def database(self, name: str) -> Path:
        return self._plain("", name)

    def _plain(self, folder: str, name: str) -> Path:
        if not name or Path(name).name != name:
            raise MaintenanceFailed("The backup names a file outside of itself.")
        return self.root / folder / name

    def prepare(self) -> None:
        """Make it ours. Raises UpkeepFailed for a folder that holds anything else."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self.root / MARKER).is_file():
            if any(self.root.iterdir()):
                raise MaintenanceFailed(f"{self.root} is neither empty nor a backup of imgsvc: name another folder.")
            self.root.chmod(0o700)
            write_file(self.root / MARKER, WORDS.encode())
        for name in (VARIANTS, STAGED, SECRETS):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        self.drop_databases(self.manifest().database if (self.root / MANIFEST).is_file() else "")

    def drop_databases(self, current: str) -> None:
        """All but one: a backup that fails every night must not fill its disk with copies."""
        for path in self.root.glob("database-*"):
            if path.name != current and not path.is_dir():
                path.unlink(missing_ok=True)

    def manifest(self) -> Manifest:
        """Raises UpkeepFailed: there is none, or it can't be understood."""
        try:
            found = Manifest.model_validate_json((self.root / MANIFEST).read_bytes())
        except FileNotFoundError:
            what = "an unfinished backup" if (self.root / MARKER).is_file() else "no backup of imgsvc"
            raise MaintenanceFailed(f"{self.root} is {what}: it has no {MANIFEST}.") from None
        except ValidationError:
            raise MaintenanceFailed(f"The {MANIFEST} in {self.root} is damaged.") from None
        if not found.secrets.keys() <= set(SECRET_FILES):
            raise MaintenanceFailed(f"The {MANIFEST} in {self.root} names secrets that this program does not have.")
        if found.format > FORMAT:
            raise MaintenanceFailed(f"The backup in {self.root} was made by a later version: {found.version}.")
        return found

    def complete(self, manifest: Manifest) -> None:
        write_file(self.root / MANIFEST, manifest.model_dump_json(indent=2).encode() + b"\n")


def settle(partial: Path, path: Path, mode: int = 0o600) -> None:
    """Give a file that was written under its partial name its own one, durably."""
    partial.chmod(mode)
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def copy(source: Path, path: Path) -> None:
    """Copy a file durably; nothing half is ever found under its name. Raises OSError."""
    partial = partial_of(path)
    try:
        shutil.copyfile(source, partial)
        settle(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def make_folders(folder: Path, root: Path) -> None:
    """`folder` and what is missing above it up to `root`, each durable in its parent."""
    if not folder.is_dir():
        make_folders(folder.parent, root)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
