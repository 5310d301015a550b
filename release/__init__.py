"""What `./run release` makes: wheel, sdist, container archive, SBOM and checksums, all from one commit."""

from pathlib import Path

ROOT = Path(__file__).parent.parent


class Refused(Exception):
    """The release can't be made; the text says why and what to do, in one sentence or two."""
