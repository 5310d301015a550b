"""The service itself: version, limits, documentation."""

from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from ... import __version__
from ...imaging.recipe import KeepSource, Variant
from ...jobs.answer_model import AnswerModel, example
from ...settings.sizes import longer_side
from ..look.frame import page, root_of
from ..look.html import el
from ..openapi.operations import PAGE, Answer, operation
from ..state import state_of
from ..wire.accept import prefers_page
from ..wire.json_response import json_response
from ..wire.problems import NO_STORE


class Root(AnswerModel):
    """Name and version of the service, and its main addresses."""

    model_config = example(
        service="imgsvc",
        version=__version__,
        description="Accepts photos and serves clean WebP variants.",
        documentation="/docs",
        health_check="/api/v1/health",
        dashboard="/dashboard",
        storage_backend="local",
    )

    service: str
    version: str
    description: str = "Accepts photos and serves clean WebP variants."
    documentation: str
    health_check: str
    dashboard: str
    storage_backend: str


class ServiceInfo(AnswerModel):
    name: str
    version: str


class StorageInfo(AnswerModel):
    backend: str
    region: str | None


class VariantInfo(AnswerModel):
    """How a variant is made. A side that is null is not limited. A JPEG has no effort.

    `animated`: an animation stays one.
    """

    width: int | None
    height: int | None
    fit: Literal["inside", "cover"]
    format: str
    quality: int
    effort: int | None
    animated: bool


class ProcessingInfo(AnswerModel):
    """`image_sizes` has the longer side of each variant, `variants` all about it. `keep_source`: whether the
    upload is kept beside them, without its metadata (`stripped`) or as it came, GPS included (`as_is`).
    """

    image_sizes: dict[str, int]
    variants: dict[str, VariantInfo]
    webp_quality: int
    keep_source: KeepSource
    allowed_mime_types: list[str]


class LimitsInfo(AnswerModel):
    max_upload_size_mb: float
    rate_limit_per_hour: float
    max_pixels: int


HERO = {"width": 1600, "height": 900, "fit": "cover", "format": "webp", "quality": 85, "effort": 4, "animated": True}


class Info(AnswerModel):
    """The effective sizes, types and limits."""

    model_config = example(
        service={"name": "imgsvc", "version": __version__},
        storage={"backend": "local", "region": None},
        processing={
            "image_sizes": {"thumbnail": 150, "medium": 600, "large": 1200, "original": 4096},
            "variants": {"hero": HERO},
            "webp_quality": 85,
            "keep_source": "none",
            "allowed_mime_types": ["image/jpeg", "image/png", "image/webp", "image/gif"],
        },
        limits={"max_upload_size_mb": 10, "rate_limit_per_hour": 50, "max_pixels": 50_000_000},
    )

    service: ServiceInfo
    storage: StorageInfo
    processing: ProcessingInfo
    limits: LimitsInfo


@operation(
    "about_root",
    "about",
    "Name, version and main addresses",
    answers={200: Answer("What this service is.", Root, ("Vary",), ("Content-Security-Policy",), page=PAGE)},
)
async def root(request: Request) -> Response:
    """JSON, or a small page for a browser (`Accept: text/html`)."""
    settings, base = state_of(request).settings, request.app.state.public_url
    root = Root(
        service=settings.service.name,
        version=__version__,
        documentation=f"{base}/docs",
        health_check=f"{base}/api/v1/health",
        dashboard=f"{base}/dashboard",
        storage_backend=settings.storage.backend,
    )
    if prefers_page(request):
        return await _start_page(request, root)
    return json_response(root, headers={**NO_STORE, "Vary": "Accept"})


async def _start_page(request: Request, root: Root) -> Response:
    base = root_of(request)
    links = {
        "docs": "API documentation",
        "dashboard": "Dashboard",
        "api/v1/health": "Health",
        "errors": "Error codes",
        "info": "Sizes, types and limits",
    }
    listed = [el("li", el("a", text, href=f"{base}/{path}")) for path, text in links.items()]
    words = (
        el("h1", root.service),
        el("p", root.description),
        el("ul", listed),
        el("p", f"imgsvc {root.version}. Programs get JSON at this address.", class_="muted"),
    )
    headers = {"Vary": "Accept", "Cache-Control": "no-cache"}
    return await page(request, "", *words, plain=True, headers=headers, body_class="reading")


def _variant(variant: Variant) -> VariantInfo:
    square = variant.width is None and variant.height is None
    return VariantInfo(
        width=variant.side if square else variant.width,
        height=variant.side if square else variant.height,
        fit="cover" if variant.cover else "inside",
        format=variant.format,
        quality=variant.quality,
        effort=None if variant.format == "jpeg" else variant.effort,
        animated=variant.animated,
    )


@operation("about_info", "about", "Sizes, types and limits", answers={200: Info})
async def info(request: Request) -> Response:
    settings = state_of(request).settings
    limit = settings.rate_limit
    region = settings.s3.region if settings.storage.backend == "s3" else None
    return json_response(
        Info(
            service=ServiceInfo(name=settings.service.name, version=__version__),
            storage=StorageInfo(backend=settings.storage.backend, region=region),
            processing=ProcessingInfo(
                image_sizes={name: longer_side(size) for name, size in settings.images.sizes.items()},
                variants={one.name: _variant(one) for one in settings.images.recipe.variants},
                webp_quality=settings.images.webp_quality,
                keep_source=settings.images.keep_source,
                allowed_mime_types=list(state_of(request).intake.allowance.types),
            ),
            limits=LimitsInfo(
                max_upload_size_mb=settings.uploads.max_size_mb,
                rate_limit_per_hour=round(limit.max_uploads * 60 / limit.window_minutes, 2),
                max_pixels=settings.images.max_pixels,
            ),
        )
    )
