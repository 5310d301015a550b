"""What render machines put into S3 by themselves, against a server that checks signatures."""

from pathlib import Path

import httpx
import pytest

from imgsvc.settings.storage import S3
from imgsvc.storage.base import Differs, NotStored, SignedPut
from imgsvc.storage.s3 import S3Storage, s3_storage
from tests.support.s3 import S3Server
from tests.support.stored import OBJECT

RUN = "a3a1f6c2-54a1-4d5c-9a39-0d8a8a0b8f10.3"
KEY, BODY = f"{RUN}/small", b"the bytes of a variant"


async def put(signed: SignedPut, body: bytes = BODY, **more: str) -> int:
    async with httpx.AsyncClient() as http:
        return (await http.put(signed.address, content=body, headers={**signed.headers, **more})).status_code


async def test_address_takes_one_size_and_one_key_until_it_expires(
    storage: S3Storage, s3: S3Server, bucket: str
) -> None:
    signed = await storage.put_address(KEY, len(BODY), 60)
    longer = BODY + b"!"
    assert await put(signed, longer, **{"Content-Length": str(len(longer))}) == 403
    elsewhere = SignedPut(signed.address.replace("/small", "/large"), signed.headers)
    assert await put(elsewhere) == 403
    out = SignedPut(signed.address.replace(f"incoming/{KEY}", OBJECT), signed.headers)
    assert await put(out) == 403
    assert s3.keys(bucket) == []
    assert await put(signed) == 200
    assert s3.client.head_object(Bucket=bucket, Key=f"incoming/{KEY}")["ServerSideEncryption"] == "AES256"
    assert await put(await storage.put_address(KEY, len(BODY), -1)) in (400, 403)


async def test_what_was_put_is_read_to_its_size_only(
    storage: S3Storage, s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    with pytest.raises(NotStored):
        await storage.take(KEY, target, 5)
    s3.client.put_object(Bucket=bucket, Key=f"incoming/{KEY}", Body=BODY)
    for wrong in (0, len(BODY) - 1, len(BODY) + 1):
        with pytest.raises(Differs):
            await storage.take(KEY, target, wrong)
    assert not target.exists()
    await storage.take(KEY, target, len(BODY))
    assert target.read_bytes() == BODY
    s3.client.put_object(Bucket=bucket, Key=f"incoming/{KEY}", Body=b"")
    with pytest.raises(Differs):
        await storage.take(KEY, target, len(BODY))


async def test_it_is_listed_apart_from_images_whatever_their_bucket_is_called(
    storage: S3Storage, s3: S3Server, bucket: str
) -> None:
    image = f"processed/small/{RUN.partition('.')[0]}_small.webp"
    images = [f"a/{image}", f"incoming/{image}", f"incoming/{RUN}/{image}"]
    for key in (*images, f"incoming/{KEY}", f"incoming/{RUN}/large", "incoming/else/small"):
        s3.client.put_object(Bucket=bucket, Key=key, Body=BODY)
    found = {one.key async for one in storage.incoming()}
    assert found == {KEY, f"{RUN}/large"}
    listed = {f"{one.bucket}/{one.key}" async for one in storage.everything()}
    assert listed == {*images, "incoming/else/small"}
    for key in found:
        await storage.drop(key)
    await storage.drop(KEY)
    assert [one async for one in storage.incoming()] == []


async def test_address_is_the_one_that_this_service_uses_and_not_that_of_browsers(s3: S3Server, bucket: str) -> None:
    async with s3_storage(
        S3(**s3.settings(bucket, public_endpoint_url="https://pictures.example.org", encryption="none"))
    ) as storage:
        signed = await storage.put_address(KEY, len(BODY), 60)
        assert signed.address.startswith(s3.url) and "x-amz-server-side-encryption" not in signed.headers
        assert await put(signed) == 200
