"""The codecs that the settings ask for: without them the service does not start."""

from ..imaging import optional_codecs
from ..jobs.lanes.caged_types import AVIF, HEIC
from ..settings import Settings, SettingsError


def require_codecs(settings: Settings) -> None:
    """Raises SettingsError where AVIF is to be written, or HEIC to be read, and there is nothing to do it with."""
    if settings.images.heic == "require" and HEIC not in optional_codecs.installed():
        package = optional_codecs.PACKAGES[HEIC]
        raise SettingsError(f'[images] heic = "require", and {package} is not installed: install imgsvc[heic]')
    if settings.images.writes_avif and AVIF not in optional_codecs.installed():
        package = optional_codecs.PACKAGES[AVIF]
        raise SettingsError(
            f"[images] formats or sizes ask for AVIF, and {package} is not installed: install imgsvc[avif]"
        )
