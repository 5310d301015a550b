"""Make everything that a release consists of, from the commit that is checked out, into dist/."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from release import ROOT, Refused, checksums, client, commit, container, packages, sbom

NO_ENGINE = (
    "no container archive was made: neither podman nor docker is installed. Install one of them and run ./run release "
    "again, or build the image from the Containerfile (docs/start/container.md)."
)

FLAGS = (
    "Where podman needs flags, the variable CONTAINER_STORE holds those of podman itself, and CONTAINER_BUILD those of "
    "podman build."
)


def make(root: Path, *, with_container: bool = True) -> list[Path]:
    """The files in `root`/dist, which is emptied first. Raises Refused."""
    released = commit.releasable(root)
    with tempfile.TemporaryDirectory(prefix="imgsvc-release-") as name:
        source, made = Path(name, "source"), Path(name, "dist")
        source.mkdir()
        made.mkdir()
        commit.export(root, source)
        say(f"building version {released.version}")
        packages.build(source, made, released.seconds)
        client.build(source, made, released.version, released.seconds)
        text = sbom.document(source, released.version, released.seconds)
        (made / f"imgsvc-{released.version}.cdx.json").write_text(text)
        engine = container.engine() if with_container else None
        if engine:
            say(f"building the container image with {engine}, which takes some minutes")
            container.build(engine, source, made, released.version, released.seconds)
        elif with_container:
            say(NO_ENGINE)
        checksums.write(made)
        shutil.rmtree(root / "dist", ignore_errors=True)
        shutil.copytree(made, root / "dist")
    return sorted((root / "dist").iterdir())


def say(text: str) -> None:
    print(f"release: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run release", description=__doc__, epilog=FLAGS)
    parser.add_argument("--without-container", action="store_true", help="leave the container archive out")
    arguments = parser.parse_args()
    try:
        files = make(ROOT, with_container=not arguments.without_container)
    except Refused as error:
        say(str(error))
        return 1
    for file in files:
        print(f"{file.stat().st_size:>12,}  dist/{file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
