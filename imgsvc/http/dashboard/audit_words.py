"""The audit trail of a job in words. dashboard/images shows it too."""

from collections.abc import Mapping
from typing import Any

from ...jobs.table.reports import Event
from ..wire.error_codes import CODES

PLAIN = {
    "accepted": "The upload was accepted and safely kept.",
    "fetched": "Its bytes were fetched from the address that the client named.",
    "preview_done": "The preview was stored: the smallest picture can be fetched.",
    "preview_none": "No preview was needed.",
    "preview_failed": "The preview could not be made; the full work goes on.",
    "completed": "All variants were stored.",
    "replayed": "The service was started again and took the job up.",
    "given_back": "The job was handed back unfinished, and waits again.",
    "twin_declined": "The same photo was there before, but its variants could not be used: it is rendered.",
    "deleted": "The image was deleted.",
    "expired": "The image's time was over, and it was deleted.",
    "render_ordered": "Further variants were ordered.",
    "rendered_again": "Further variants were stored.",
    "render_requeued": "The further variants wait again.",
    "render_replayed": "The service was started again and took the further variants up.",
}


def words(event: Event) -> str:
    """What happened, as one sentence."""
    made = WITH_FACTS.get(event.kind)
    if made is not None:
        return made(event.facts)
    return PLAIN.get(event.kind) or f"{event.kind.replace('_', ' ').capitalize()}."


def _processing(facts: Mapping[str, Any]) -> str:
    what = "on the preview" if facts.get("queue") == "previews" else "on all variants"
    return f"Work began {what}."


def _retrying(facts: Mapping[str, Any]) -> str:
    return f"The attempt failed: {_meaning(facts)} It is tried again by itself."


def _failed(facts: Mapping[str, Any]) -> str:
    return f"The job failed: {_meaning(facts)}"


def _meaning(facts: Mapping[str, Any]) -> str:
    known = CODES.get(str(facts.get("code")))
    return known.meaning if known else "the reason is not known."


def _retried(facts: Mapping[str, Any]) -> str:
    return f"The {facts.get('by', 'operator')} asked for another attempt."


def _updated(facts: Mapping[str, Any]) -> str:
    names = {"client_metadata": "the metadata", "expires_at": "the time of expiry", "focal": "the focal point"}
    members = facts.get("members")
    changed = [names.get(str(one), str(one)) for one in members] if isinstance(members, list) else []
    return f"Changed: {', '.join(changed)}." if changed else "The image was changed."


def _moved(facts: Mapping[str, Any]) -> str:
    return f"The files were moved from {facts.get('before')} to {facts.get('after')}."


def _render_failed(facts: Mapping[str, Any]) -> str:
    return f"The further variants could not be made: {_meaning(facts)}"


WITH_FACTS = {
    "processing": _processing,
    "retrying": _retrying,
    "failed": _failed,
    "retried": _retried,
    "updated": _updated,
    "moved": _moved,
    "render_failed": _render_failed,
    "render_retrying": _render_failed,
}
