"""A software bill of materials in CycloneDX's JSON (https://cyclonedx.org/docs/1.6/json/), made from requirements.lock.

It lists the Python packages that the service runs with, and which of them asks for which. Debian's packages in the
container are not in it.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

PROJECT = "imgsvc (pyproject.toml)"  # what the lock calls us
REQUIREMENT = re.compile(r"^([\w.-]+)==(\S+)(?: ; ([^\\\n]+?))? \\\n((?: .*\n)+)", re.MULTILINE)
MAX_LICENSE = 80  # characters; longer ones are whole texts


@dataclass(frozen=True, slots=True)
class Locked:
    """A package of the lock. `marker`: where it is installed, if not everywhere; `wanted_by`: who depends on it."""

    name: str
    version: str
    marker: str | None
    sha256: tuple[str, ...]
    wanted_by: tuple[str, ...]


def locked(lock: str) -> Iterator[Locked]:
    """The packages of a file that `uv pip compile --generate-hashes` wrote."""
    for name, version, marker, rest in REQUIREMENT.findall(lock):
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", rest))
        via = re.findall(r"# via (.+)|#   (.+)", rest)
        yield Locked(name, version, marker or None, hashes, tuple(one or more for one, more in via))


def document(source: Path, version: str, seconds: int) -> str:
    """The SBOM of the project in `source`, as JSON. Licences are those that the installed packages name."""
    packages = list(locked((source / "requirements.lock").read_text()))
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    service = Component(
        name=project["name"],
        version=version,
        type=ComponentType.APPLICATION,
        description=project["description"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
        purl=PackageURL("pypi", name=project["name"], version=version),
        bom_ref="imgsvc",
    )
    components = {one.name: _component(one) for one in packages} | {PROJECT: service}
    bom = Bom(
        components=[components[one.name] for one in packages],
        serial_number=uuid5(NAMESPACE_URL, f"{service.purl} {seconds}"),
        metadata=BomMetaData(component=service, timestamp=datetime.fromtimestamp(seconds, UTC)),
    )
    for name, component in components.items():
        bom.register_dependency(component, [components[one.name] for one in packages if name in one.wanted_by])
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return text + "\n"


def _component(one: Locked) -> Component:
    package = PackageURL("pypi", name=one.name, version=one.version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(package.to_string()),
        comment="each hash is of one file of this version" + (f"; installed where {one.marker}" if one.marker else ""),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256) for sha256 in one.sha256],
    )
    licence = _license(one.name)
    return Component(
        name=one.name,
        version=one.version,
        scope=ComponentScope.OPTIONAL if one.marker else ComponentScope.REQUIRED,
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
        purl=package,
        external_references=[files],
        bom_ref=f"{one.name}=={one.version}",
    )


def _license(name: str) -> str:
    """As the installed package says it; empty for one that says nothing, or is not installed here."""
    try:
        said = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    text = next((said[field] for field in ("License-Expression", "License") if field in said), "")
    return text if len(text) <= MAX_LICENSE and "\n" not in text else ""
