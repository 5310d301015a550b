import errno
from typing import Any

import aiohttp
import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from imgsvc.storage.base import NotStored, StorageBusy, StorageError
from imgsvc.storage.s3_errors import as_storage_error, may_pass

PLACE: Any = {"endpoint_url": "https://store", "error": "why"}


def answered(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


@pytest.mark.parametrize(
    ("error", "passes", "kind", "plain"),
    [
        (answered(503, "SlowDown"), True, StorageError, "status 503"),
        (answered(500, "InternalError"), True, StorageError, "status 500"),
        (answered(429, "TooManyRequests"), True, StorageError, "status 429"),
        (answered(400, "RequestTimeout"), True, StorageError, "status 400"),
        (answered(400, "BadDigest"), True, StorageError, "status 400"),
        (answered(501, "NotImplemented"), False, StorageError, "status 501"),
        (answered(403, "AccessDenied"), False, StorageError, "lacks the permission"),
        (answered(403, "403"), False, StorageError, "lacks the permission"),
        (answered(403, "SignatureDoesNotMatch"), False, StorageError, "secret access key is wrong"),
        (answered(403, "RequestTimeTooSkewed"), False, StorageError, "clock"),
        (answered(400, "ExpiredToken"), False, StorageError, "expired"),
        (answered(404, "NoSuchBucket"), False, StorageError, "bucket does not exist"),
        (answered(404, "NoSuchKey"), False, NotStored, "Nothing has this name"),
        (answered(404, "404"), False, NotStored, "address"),
        (answered(301, "PermanentRedirect"), False, StorageError, "another region"),
        (exceptions.EndpointConnectionError(**PLACE), True, StorageError, "can't be reached"),
        (exceptions.ConnectionClosedError(**PLACE), True, StorageError, "can't be reached"),
        (exceptions.ReadTimeoutError(**PLACE), True, StorageError, "in time"),
        (exceptions.ConnectTimeoutError(**PLACE), True, StorageError, "in time"),
        (aiohttp.ClientPayloadError("cut"), True, StorageError, "can't be reached"),
        (TimeoutError(), True, StorageError, "in time"),
        (exceptions.SSLError(**PLACE), False, StorageError, "certificate"),
        (exceptions.NoCredentialsError(), False, StorageError, "No access key"),
        (exceptions.ProfileNotFound(profile="x"), False, StorageError, "can't be used"),
        (OSError(errno.EMFILE, "Too many open files"), False, StorageBusy, ""),
        (NotStored("x"), False, NotStored, ""),
    ],
    ids=repr,
)
def test_error(error: Exception, passes: bool, kind: type[StorageError], plain: str) -> None:
    told = as_storage_error(error, "put")
    assert may_pass(error) is passes
    assert type(told) is kind
    assert plain in told.plain


def test_too_many_open_files_behind_another_error() -> None:
    error = exceptions.EndpointConnectionError(**PLACE)
    error.__context__ = OSError(errno.EMFILE, "Too many open files")
    assert isinstance(as_storage_error(error, "put"), StorageBusy)
