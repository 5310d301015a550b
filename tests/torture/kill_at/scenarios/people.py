"""API keys and people: made, revoked, erased, and all of it again after a restore of a backup from before."""

import json
from typing import Any

from tests.torture.kill_at.case import REST_SECONDS, Attempt, stopped
from tests.torture.kill_at.scenarios.pictures import several_completed, tiny
from tests.torture.kill_at.site import Answer, Gone, Service, bearer, until

KEYS, USERS = "/api/v1/operator/keys", "/api/v1/operator/users"
PERSON, ORG = "alice", "default-org"
MADE = {200, 201, 202}
NAMED = (
    "SELECT count(*) FROM (SELECT user_id FROM processing_jobs UNION ALL SELECT user_id FROM api_keys"
    " UNION ALL SELECT user_id FROM upload_tickets UNION ALL SELECT user_id FROM upload_rate_limits"
    " UNION ALL SELECT user_id FROM usage UNION ALL SELECT user_id FROM erasures) WHERE user_id = ?"
)


def _new_key(service: Service) -> Answer:
    body = json.dumps({"name": "n", "sub": PERSON, "org": ORG}).encode()
    return service.ask("POST", KEYS, body, service.operator)


def create_key(attempt: Attempt) -> None:
    """And upload with it."""
    with attempt.serve() as service:
        answer = _new_key(service)
        if answer.status == 201:
            attempt.memory["key"] = answer.body["key"]
        _upload_with_key(attempt, service)
        stopped(attempt, service)


def _upload_with_key(attempt: Attempt, service: Service) -> int:
    key = attempt.memory.get("key", "imgk_none_that_is_known")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "image/jpeg"}
    answer = service.ask("POST", "/api/v1/images/upload?bucket=b", tiny(9), headers)
    if answer.status == 202:
        attempt.receipts[answer.body["job_id"]] = answer.body["image_id"]
        attempt.ended(service, answer.body["job_id"])
    return answer.status


def key_lets_in(attempt: Attempt, service: Service) -> None:
    """A key that was handed out is good."""
    if "key" in attempt.memory and _upload_with_key(attempt, service) != 202:
        attempt.wrong.append("An API key that was handed out is refused.")


def a_key(attempt: Attempt) -> None:
    with attempt.site.serve() as service:
        made = _new_key(service).body
        attempt.memory |= {"key": made["key"], "key_id": made["key_id"]}
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def revoke_key(attempt: Attempt) -> None:
    with attempt.serve() as service:
        answer = service.ask("DELETE", f"{KEYS}/{attempt.memory['key_id']}", headers=service.operator)
        attempt.memory["answered"] = attempt.noted(answer, "a revocation").status
        stopped(attempt, service)


def key_is_revoked_if_answered(attempt: Attempt, service: Service) -> None:
    """In the database and beside it; what is in one of them is in both after a start."""
    revoked = bool(attempt.rows("SELECT 1 FROM api_keys WHERE revoked_at IS NOT NULL"))
    recorded = any(line["kind"] == "revoked" for line in _lines(attempt))
    if revoked != recorded:
        attempt.wrong.append(f"A key is revoked in the database: {revoked}, beside it: {recorded}.")
    if attempt.memory.get("answered") == 200 and not revoked:
        attempt.wrong.append("A revocation that was answered does not hold.")
    if _upload_with_key(attempt, service) != (401 if revoked else 202):
        attempt.wrong.append("What the table says of a key does not hold.")


def a_key_in_a_backup(attempt: Attempt) -> None:
    """And no file of revocations yet, as after an update from a version that kept none."""
    a_key(attempt)
    assert attempt.site.command("storage", "backup", str(attempt.site.backup)) == 0
    (attempt.site.data / "revocations.jsonl").unlink()


def revoked_key_stays_revoked(attempt: Attempt, service: Service) -> None:
    """Though the database is one from before it was."""
    if attempt.memory.get("answered") == 200 and _upload_with_key(attempt, service) != 401:
        attempt.wrong.append("A key whose revocation was answered is good again after a restore.")


def _lines(attempt: Attempt) -> list[dict[str, Any]]:
    text = (attempt.site.data / "revocations.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines() if line]


def somebody(attempt: Attempt) -> None:
    """With images, a key, a ticket and a denial."""
    several_completed(attempt)
    with attempt.site.serve() as service:
        attempt.memory["key"] = _new_key(service).body["key"]
        sent = {**bearer(PERSON), "Content-Type": "application/json"}
        ticket = service.ask("POST", "/api/v1/images/tickets", b'{"bucket": "b"}', sent).body
        attempt.memory["ticket"] = ticket["upload_url"]
        assert service.ask("GET", "/api/v1/images?scope=org", headers=bearer(PERSON)).status == 403
        stopped(attempt, service)


def erase(attempt: Attempt) -> None:
    with attempt.serve() as service:
        _erase(attempt, service)
        stopped(attempt, service)


def _erase(attempt: Attempt, service: Service) -> None:
    answer = attempt.noted(service.ask("DELETE", f"{USERS}/{ORG}/{PERSON}", headers=service.operator), "an erasure")
    attempt.memory["answered"] = answer.status
    until(lambda: service.gone or _is_over(attempt), REST_SECONDS, why="an erasure does not end")
    if service.gone:
        raise Gone


def _is_over(attempt: Attempt) -> bool:
    return not attempt.rows("SELECT 1 FROM erasures WHERE ended_at IS NULL") or attempt.has_logged(
        "person_erasure_failed", "withdraw_failed", "unlink_failed"
    )


def erased_if_ordered(attempt: Attempt, service: Service) -> None:
    """Whatever was cut short, an order that is in the table is carried out to its end."""
    ended = "SELECT count(*), count(ended_at) FROM erasures"
    until(lambda: len(set(attempt.rows(ended)[0])) == 1, REST_SECONDS, why="an erasure is not taken up again")
    ordered = bool(attempt.rows(ended)[0][0])
    if attempt.memory.get("answered") in MADE and not ordered:
        attempt.wrong.append("An erasure that was answered is forgotten.")
    if ordered:
        _nothing_is_left(attempt)


def _nothing_is_left(attempt: Attempt) -> None:
    named = attempt.rows(NAMED, PERSON)[0][0]
    audit = attempt.rows("SELECT count(*) FROM image_upload_events WHERE metadata LIKE ?", f'%"{PERSON}"%')[0][0]
    left = attempt.rows("SELECT count(*) FROM processing_jobs WHERE deleted_at IS NULL")[0][0]
    if named or audit or left:
        attempt.wrong.append(f"Of an erased person are left: {left} images, {named} rows, {audit} audit events.")
    if not any(line["kind"] == "erased" for line in _lines(attempt)):
        attempt.wrong.append("An erasure is not recorded beside the database.")


def much_after_a_backup(attempt: Attempt) -> None:
    """A backup with a key, a ticket and images; then the key is revoked, the ticket spent and the person erased."""
    somebody(attempt)
    with attempt.site.serve() as service:
        kept = service.ask("POST", KEYS, json.dumps({"name": "n", "sub": "bob"}).encode(), service.operator).body
        attempt.memory |= {"key": kept["key"], "key_id": kept["key_id"]}
        stopped(attempt, service)
    assert attempt.site.command("storage", "backup", str(attempt.site.backup)) == 0
    with attempt.site.serve() as service:
        service.ask("DELETE", f"{KEYS}/{kept['key_id']}", headers=service.operator)
        _erase(attempt, service)
        stopped(attempt, service)
    attempt.memory = {name: one for name, one in attempt.memory.items() if name in ("key", "key_id", "ticket")}


def restored_and_revoked(attempt: Attempt, service: Service) -> None:
    until(
        lambda: not attempt.rows("SELECT 1 FROM erasures WHERE ended_at IS NULL"),
        REST_SECONDS,
        why="an erasure is not done again",
    )
    _nothing_is_left(attempt)
    if _upload_with_key(attempt, service) != 401:
        attempt.wrong.append("A key that was revoked after the backup is good again.")
    answer = service.ask("POST", attempt.memory["ticket"], tiny(), {"Content-Type": "image/jpeg"})
    if answer.status != 401:
        attempt.wrong.append("A ticket of before the restore is good.")
