"""What the tests of storages put and read."""

from pathlib import Path

from imgsvc.storage.base import Storage

KEY = "processed/large/x_large.webp"
OBJECT = f"a/b/{KEY}"


def source(tmp_path: Path, data: bytes, name: str = "source") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


async def read_from(storage: Storage, bucket: str, key: str, start: int, length: int) -> bytes:
    blob = await storage.read(bucket, key, start, length)
    return blob.first + b"".join([chunk async for chunk in blob.rest])


async def read(storage: Storage, start: int, length: int) -> bytes:
    """Of the file KEY in the bucket a/b."""
    return await read_from(storage, "a/b", KEY, start, length)
