"""Unpacks tar archives of the tests."""

import tarfile
from pathlib import Path


def unpack_into(folder: Path, archive: tarfile.TarFile) -> None:
    """Extract data only, by the filter of PEP 706, which Python 3.11 has from 3.11.4 on: Debian 12 has 3.11.2."""
    archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
    archive.extractall(folder)
