"""Webhooks: whatever is cut short, each message arrives once or twice with one id, never not at all."""

import json
from collections import Counter
from pathlib import Path

from tests.support.receiver import Receiver
from tests.torture.kill_at.case import REST_SECONDS, Attempt, stopped
from tests.torture.kill_at.scenarios.pictures import tiny
from tests.torture.kill_at.site import Service, Site, until

RECEIVERS: dict[Path, Receiver] = {}  # by the folder of the site; they live as long as this process
WAITING = "SELECT 1 FROM webhook_outbox WHERE state = 'waiting' LIMIT 1"


def own_receiver(site: Site) -> None:
    receiver = RECEIVERS[site.folder] = Receiver()
    site.more = {**site.more, "IMGSVC_WEBHOOKS": json.dumps([receiver.settings()])}


def told(attempt: Attempt) -> None:
    with attempt.serve() as service:
        job = attempt.upload(service, tiny())
        attempt.ended(service, job)
        attempt.delete(service, *attempt.receipts.values())
        stopped(attempt, service)


def each_arrived(attempt: Attempt, service: Service) -> None:
    attempt.rest(service)
    until(lambda: service.gone or not attempt.rows(WAITING), REST_SECONDS, why="deliveries wait for ever")
    received = list(RECEIVERS[attempt.site.folder].received)
    rows = attempt.rows("SELECT message_id, event_type, state FROM webhook_outbox ORDER BY id")
    count = Counter(one.id for one in received)
    for message_id, kind, state in rows:
        if state != "delivered" or not 1 <= count[message_id] <= 2:
            attempt.wrong.append(f"{kind} is {state} and was received {count[message_id]} times.")
    if unknown := count.keys() - {row[0] for row in rows}:
        attempt.wrong.append(f"{len(unknown)} messages were received that no row knows.")
    if list(dict.fromkeys(one.id for one in received)) != [row[0] for row in rows]:
        attempt.wrong.append("The messages of an image arrived in another order.")
    wanted = [
        event
        for kind, event in (
            ("preview_done", "image.ready"),
            ("completed", "image.completed"),
            ("deleted", "image.deleted"),
        )
        for _ in attempt.rows("SELECT 1 FROM image_upload_events WHERE event_type = ?", kind)
    ]
    if sorted(wanted) != sorted(row[1] for row in rows):
        attempt.wrong.append(f"The rows {[row[1] for row in rows]} are not those of the events {wanted}.")
