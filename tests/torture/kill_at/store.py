"""One S3 server for all cases that need one, with a bucket for each site."""

from tests.support.s3 import shared as server
from tests.torture.kill_at.site import Site


def own_bucket(site: Site) -> None:
    """Give this site a bucket with the objects of the one that it was copied with, which stays as it is."""
    former, bucket = bucket_of(site), server().bucket()
    for key in keys(former) if former else ():
        server().client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": former, "Key": key})
    backend = site.more.get("STORAGE_BACKEND", "local")
    site.more = {**site.more, **server().environment(bucket), "STORAGE_BACKEND": backend}


def bucket_of(site: Site) -> str:
    return site.more.get("AWS_S3_BUCKET_NAME", "")


def keys(bucket: str) -> set[str]:
    return set(server().keys(bucket))
