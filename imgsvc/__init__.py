"""imgsvc: a self-hosted image service."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .service.app import create_app
    from .settings import Settings

__version__ = "0.2.0"
__all__ = ["Settings", "__version__", "create_app"]


def __getattr__(name: str) -> Any:
    """Import public names at their first use (PEP 562): worker processes import this package without the web part."""
    if name == "create_app":
        from .service.app import create_app

        return create_app
    if name == "Settings":
        from .settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
