"""The C libraries that decode uploaded files: their versions, and the packages that contain them.

A distribution fixes a library without raising its version, so only the package's version tells. Pillow's own wheel
brings its libraries along, and no package has a part in them.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ...settings import Settings
from .finding import Finding, warning, well

# Pillow's name of a library, its usual name, and the Debian packages that may contain it.
LIBRARIES = (
    ("libjpeg_turbo", "libjpeg-turbo", ("libjpeg62-turbo", "libjpeg-turbo8")),
    ("zlib", "zlib", ("zlib1g",)),
    ("webp", "libwebp", ("libwebp7",)),
    ("littlecms2", "lcms2", ("liblcms2-2",)),
)
# CVE-2026-41254: a picture's colour profile triggers an overflow in every lcms2 up to 2.18 without the fix.
LAST_UNMENDED = (2, 18)
UNFIXED_PACKAGE = re.compile(r"2\.14-2(?!\+deb12u[1-9])")  # Debian 12, before its security update


def libraries(_settings: Settings) -> Iterator[Finding]:
    """List all libraries, and check lcms2 if its package is known."""
    from PIL import features

    bundled = _are_bundled()
    found = {
        name: (features.version(key), None if bundled else _package(packages)) for key, name, packages in LIBRARIES
    }
    shown = (f"{name} {version}" + (f" ({package})" if package else "") for name, (version, package) in found.items())
    text = "decoders: " + ", ".join(shown)
    if bundled:
        text += ", all in Pillow's wheel"
    version, package = found["lcms2"]
    if package and UNFIXED_PACKAGE.match(package):
        yield warning(text, "update liblcms2-2: CVE-2026-41254 is fixed in 2.14-2+deb12u1")
    elif _is_newer(version or "") or (package and "+deb12u" in package):
        yield well(text)
    else:
        yield well(f"{text}; lcms2 up to 2.18 has CVE-2026-41254 unless the distribution fixed it")


def _are_bundled() -> bool:
    """Whether Pillow came as a wheel: auditwheel puts the libraries beside the package."""
    import PIL

    return Path(PIL.__file__).parent.with_name("pillow.libs").is_dir()


def _is_newer(version: str) -> bool:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return numbers > LAST_UNMENDED


def _package(names: tuple[str, ...]) -> str | None:
    """The version of the first of these packages that is installed; None without dpkg."""
    query = shutil.which("dpkg-query")
    for name in names if query else ():
        command = [str(query), "-W", "-f", "${db:Status-Status} ${Version}", name]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            return None
        status, _, version = ran.stdout.partition(" ")
        if status == "installed":
            return version
    return None
