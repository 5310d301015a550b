"""Verifies a webhook of the service: Standard Webhooks 1.0.0, scheme v1."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import WebhookInvalid

TOLERANCE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Message:
    """A verified message. It may come twice with the same `id`."""

    id: str
    type: str
    timestamp: str
    data: Mapping[str, Any]


def verify_webhook(body: bytes | str, headers: Mapping[str, str], secret: str | Sequence[str]) -> Message:
    """Verify a request by its raw body and headers; `secret` is whsec_…, or several of them while one replaces another.

    Raises WebhookInvalid: not signed with it, older or newer than five minutes, or malformed.
    """
    lower = {name.lower(): text for name, text in headers.items()}
    message_id, moment = lower.get("webhook-id", ""), lower.get("webhook-timestamp", "")
    given = lower.get("webhook-signature", "").split()
    if not (message_id and given and moment.isascii() and moment.isdigit()):
        raise WebhookInvalid("a header of the signature is missing or malformed")
    if abs(time.time() - int(moment)) > TOLERANCE_SECONDS:
        raise WebhookInvalid("the message is too old or from the future")
    raw = body.encode() if isinstance(body, str) else body
    signed = b".".join((message_id.encode(), moment.encode(), raw))
    wanted = [_signature(one, signed) for one in ([secret] if isinstance(secret, str) else secret)]
    if not any(hmac.compare_digest(one, other) for one in given for other in wanted):
        raise WebhookInvalid("no signature fits")
    try:
        found = json.loads(raw)
        return Message(message_id, found["type"], found["timestamp"], found["data"])
    except (ValueError, KeyError, TypeError):
        raise WebhookInvalid("the body is no message") from None


def _signature(secret: str, signed: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_") + "==")
    except binascii.Error:
        raise WebhookInvalid("the secret is not base64") from None
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"
