"""The storages that the settings know, opened: for whoever has no running service."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from ..settings import Settings
from .base import Storage
from .local import LocalStorage


@asynccontextmanager
async def configured(settings: Settings) -> AsyncIterator[Mapping[str, Storage]]:
    """{backend: storage}, closed at the end."""
    local = LocalStorage(settings.storage.path)
    yield {local.name: local}
