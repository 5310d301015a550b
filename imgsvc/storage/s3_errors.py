"""Classifies S3 errors: whether a retry could help, and the reason in plain words."""

import errno

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from .base import NotStored, StorageBusy, StorageError

# Temporary errors with a status below 500: throttling, and bytes lost or damaged in transfer.
PASSING = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "RequestTimeout"}
DAMAGED = {"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"}
PLAIN = {
    "NoSuchBucket": "The bucket does not exist.",
    "InvalidAccessKeyId": "The object storage does not know the access key.",
    "SignatureDoesNotMatch": "The object storage refuses the signature: the secret access key is wrong.",
    "AccessDenied": "The object storage refuses: the access key lacks the permission.",
    "ExpiredToken": "The temporary access key has expired.",
    "InvalidToken": "The session token is not one for this access key.",
    "RequestTimeTooSkewed": "This machine's clock differs too much from that of the object storage.",
    "PermanentRedirect": "The bucket is in another region.",
    "AuthorizationHeaderMalformed": "The bucket is in another region.",
}
NOTHING_THERE = "Nothing has this name. If that is so for all names: is the address that of an object storage?"
CAN_NOT_ENCRYPT = "The object storage can't encrypt at rest: set [s3] encryption = none."
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)


def may_pass(error: Exception) -> bool:
    """Whether the same request could succeed a moment later."""
    if isinstance(error, ClientError):
        code, status = _code(error), _status(error)
        return code in PASSING | DAMAGED or status == 429 or (status >= 500 and status != 501)
    return not isinstance(error, SSLError) and isinstance(
        error, (HTTPClientError, ConnectionError, aiohttp.ClientError, TimeoutError)
    )


def is_missing(error: ClientError) -> bool:
    """Whether the key does not exist. A HEAD has no body, and so no code to tell it from a missing bucket."""
    return _code(error) in ("NoSuchKey", "404")


def is_outside(error: ClientError) -> bool:
    """Whether the range begins after the last byte."""
    return _status(error) == 416


def is_not_implemented(error: ClientError) -> bool:
    """Whether the store lacks what the request asked for."""
    return _status(error) == 501 or "KMS" in _code(error)


def as_storage_error(error: Exception, operation: str) -> StorageError:
    if isinstance(error, StorageError):
        return error
    if isinstance(error, ClientError):
        if is_missing(error):
            return NotStored(f"{operation}: {_code(error)} (status {_status(error)})", NOTHING_THERE)
        return StorageError(f"{operation}: {_code(error)} (status {_status(error)})", _plain_code(error))
    if _out_of_files(error):
        return StorageBusy(f"{operation}: too many open files")
    plain = _plain(error)
    return StorageError(f"{operation}: {str(error) or plain or type(error).__name__}", plain)


def _plain_code(error: ClientError) -> str:
    code, status = _code(error), _status(error)
    if code in PLAIN:
        return PLAIN[code]
    if status in (401, 403):
        return PLAIN["AccessDenied"]
    return f"The object storage answered with the status {status}."


def _plain(error: Exception) -> str:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return "No access key was found, neither in the settings nor where AWS tools look for one."
    if isinstance(error, SSLError):
        return "The certificate of the object storage is not trusted."
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError, TimeoutError)):
        return "The object storage does not answer in time."
    if isinstance(error, (ConnectionError, HTTPClientError, aiohttp.ClientError)):
        return "The object storage can't be reached, or broke the connection."
    if isinstance(error, BotoCoreError):
        return "The settings of the object storage can't be used; the log says why."
    return ""


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _out_of_files(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in OUT_OF_FILES:
            return True
        cause = cause.__cause__ or cause.__context__
    return False
