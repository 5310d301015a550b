"""The layout of a backup on disk.

    imgsvc-backup.txt        describes the folder, and marks it as a backup
    manifest.json            written last: everything it names is complete
    database-{moment}.db     one SQLite file without a log; it contains the digest of every file below
    variants/{bucket}/{key}  as stored, from any backend
    staged/{name}            uploads that are not processed yet
    secrets/{digest}         mode 0600; the manifest maps names to digests

A second backup into the same folder copies only new files. Files that the earlier manifest needs are not touched until
the new manifest has replaced it in one rename.
"""

import errno
import os
import shutil
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from ...storage.durable_files import make_root, partial_of, sync_folder, write_file
from ..progress import MaintenanceFailed

log = structlog.get_logger()

FORMAT = 1
MARKER, MANIFEST = "imgsvc-backup.txt", "manifest.json"
VARIANTS, STAGED, SECRETS = "variants", "staged", "secrets"
SECRET_FILES = ("jwt_secret", "operator_token", "url_key")
WORDS = """\
This folder is a backup of imgsvc. It is complete when manifest.json is there.
It contains the service's secrets and uploads that may carry GPS data: keep it as private as the service itself.
To restore it, stop the service and run: imgsvc storage restore THIS_FOLDER
"""


class Whole(BaseModel):
    """Number and size of the files of one kind."""

    model_config = ConfigDict(defer_build=True, frozen=True)

    files: int = 0
    bytes: int = 0


class Manifest(BaseModel):
    """The manifest. `absent` lists files that the service had lost; `elsewhere` counts files left in backends."""

    model_config = ConfigDict(defer_build=True, frozen=True)

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
    """A backup's folder. Methods raise OSError if the disk fails; MaintenanceFailed for a path outside of it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def variant(self, bucket: str, key: str) -> Path:
        """The path of a variant. It must be inside the folder: a backup may have been tampered with."""
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
        """Create or reuse the folder. Raises MaintenanceFailed if it contains anything else."""
        make_root(self.root, 0o700)
        if not (self.root / MARKER).is_file():
            partial_of(self.root / MARKER).unlink(missing_ok=True)  # of a first backup that was killed
            if any(self.root.iterdir()):
                raise MaintenanceFailed(f"{self.root} is neither empty nor a backup of imgsvc: name another folder.")
            _restrict(self.root, 0o700)
            write_file(self.root / MARKER, WORDS.encode())
        for name in (VARIANTS, STAGED, SECRETS):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        self.drop_databases(self.manifest().database if (self.root / MANIFEST).is_file() else "")

    def drop_databases(self, current: str) -> None:
        """Remove all database copies but one: a backup that fails every night must not fill its disk with them."""
        for path in self.root.glob("database-*"):
            if path.name != current and not path.is_dir():
                path.unlink(missing_ok=True)

    def manifest(self) -> Manifest:
        """Read the manifest. Raises MaintenanceFailed if it is missing or invalid."""
        try:
            found = Manifest.model_validate_json((self.root / MANIFEST).read_bytes())
        except FileNotFoundError:
            what = "an unfinished backup" if (self.root / MARKER).is_file() else "no backup of imgsvc"
            raise MaintenanceFailed(f"{self.root} is {what}: it has no {MANIFEST}.") from None
        except ValidationError:
            raise MaintenanceFailed(f"The {MANIFEST} in {self.root} is damaged.") from None
        if not found.secrets.keys() <= set(SECRET_FILES):
            raise MaintenanceFailed(f"The {MANIFEST} in {self.root} names secrets that this program does not use.")
        if found.format > FORMAT:
            raise MaintenanceFailed(f"The backup in {self.root} was made by a later version: {found.version}.")
        return found

    def complete(self, manifest: Manifest) -> None:
        write_file(self.root / MANIFEST, manifest.model_dump_json(indent=2).encode() + b"\n")


_warned: set[int] = set()  # devices


def _restrict(path: Path, mode: int) -> None:
    """Set the mode, with a warning where a share has none of its own (CIFS, exFAT): its mount decides who may read."""
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        device = path.stat().st_dev
        if device not in _warned:
            _warned.add(device)
            words = "the backup holds secrets and photos: check that no other user can read its mount"
            log.warning("backup_mode_refused", folder=str(path.parent), refused=error.strerror, reason=words)


def settle(partial: Path, path: Path, mode: int = 0o600) -> None:
    """Rename a file from its temporary name, durably."""
    _restrict(partial, mode)
    with partial.open("rb") as stream:
        os.fsync(stream.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def copy(source: Path, path: Path) -> None:
    """Copy a file durably and atomically. Raises OSError."""
    partial = partial_of(path)
    try:
        shutil.copyfile(source, partial)
        settle(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def make_folders(folder: Path, root: Path) -> None:
    """Create `folder` and its missing parents below `root`, each durable in its parent."""
    if not folder.is_dir():
        make_folders(folder.parent, root)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
