"""Why a Redis can't be used, in the words of the log and of `imgsvc doctor`."""

import re

from redis.exceptions import AskError, ClusterCrossSlotError, ClusterDownError, NoPermissionError


def reason_of(error: Exception, password: str) -> str:
    """The reason without the password, which a server or the client may repeat."""
    text = _plain(error)
    return text.replace(password, "(hidden)") if password else text


def _plain(error: Exception) -> str:
    """The error's own words, or what to do where a server is set up in a way that this service can't use."""
    text = str(error) or type(error).__name__
    if isinstance(error, AskError | ClusterDownError | ClusterCrossSlotError):  # MOVED is an AskError too
        return "it is a Redis Cluster, which is not supported: name a single server in REDIS_URL"
    if isinstance(error, NoPermissionError):
        needed = "allow its user EVAL, TIME, HMGET, HSET, HINCRBY, PEXPIREAT and DEL on the keys of [redis] prefix"
        return f"{text[:200]}: {needed}"
    if re.match(r"(ERR )?unknown command .?eval\b", text, re.IGNORECASE):
        return "it knows no EVAL (a Sentinel?): name the Redis server itself in REDIS_URL"
    return text
