-- Whom the service tells what happens to images. Tables of their own: a row of processing_jobs has many events, each of
-- which waits for each endpoint on its own. The rows hold ids, types and times, nothing personal.
--
-- A trigger on the audit events fills the outbox, so whichever change writes an event, the outbox rows are committed
-- with it.

CREATE TABLE webhook_endpoints (
  name            TEXT PRIMARY KEY,
  configured      INTEGER NOT NULL,                    -- 0: no longer in the settings
  events          TEXT NOT NULL,                       -- JSON list
  buckets         TEXT NOT NULL,                       -- JSON list; empty: all
  switched_off_at TEXT,                                -- it answered 410
  overflowed_at   TEXT,                                -- the last time that the oldest was given up for a newer one
  most_waiting    INTEGER NOT NULL DEFAULT 100000,
  waiting         INTEGER NOT NULL DEFAULT 0           -- rows of the outbox, counted by the triggers below
) STRICT, WITHOUT ROWID;

CREATE TABLE webhook_outbox (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,   -- the order
  webhook         TEXT NOT NULL,
  message_id      TEXT NOT NULL,                       -- the same at each attempt
  event_type      TEXT NOT NULL,
  image_id        TEXT NOT NULL,
  job_id          TEXT NOT NULL,
  occurred_at     TEXT NOT NULL,
  state           TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'held', 'delivered', 'given_up')),
  attempts        INTEGER NOT NULL DEFAULT 0,
  waiting_since   TEXT NOT NULL,                       -- the event, or its replay
  next_attempt_at TEXT NOT NULL,
  ended_at        TEXT
) STRICT;

CREATE INDEX outbox_due ON webhook_outbox (webhook, next_attempt_at, id) WHERE state = 'waiting';
CREATE INDEX outbox_of_image ON webhook_outbox (webhook, image_id, id) WHERE state = 'waiting';
CREATE INDEX outbox_in_order ON webhook_outbox (webhook, id) WHERE state = 'waiting';
CREATE INDEX outbox_ended ON webhook_outbox (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX outbox_by_image ON webhook_outbox (image_id);

CREATE TABLE webhook_attempts (                        -- the delivery log: never a body or a header
  id              INTEGER PRIMARY KEY,
  delivery        INTEGER NOT NULL,                    -- id in webhook_outbox
  webhook         TEXT NOT NULL,
  attempt         INTEGER NOT NULL,
  started_at      TEXT NOT NULL,
  status          INTEGER,                             -- of the answer; NULL: none
  reason          TEXT,                                -- why there was none: name, address, connect, tls, timeout, …
  milliseconds    INTEGER NOT NULL
) STRICT;

CREATE INDEX attempts_by_start ON webhook_attempts (started_at);
CREATE INDEX attempts_of_webhook ON webhook_attempts (webhook, id);
CREATE INDEX attempts_of_delivery ON webhook_attempts (delivery);

CREATE TRIGGER webhook_told AFTER INSERT ON image_upload_events
WHEN NEW.event_type IN ('preview_done', 'completed', 'failed', 'deleted', 'expired') AND NEW.image_id IS NOT NULL
BEGIN
  INSERT INTO webhook_outbox (webhook, message_id, event_type, image_id, job_id, occurred_at, waiting_since, next_attempt_at)
  SELECT endpoint.name, 'msg_' || lower(hex(randomblob(16))), told.event, NEW.image_id, NEW.job_id,
    NEW.created_at, NEW.created_at, NEW.created_at
  FROM processing_jobs AS job,
    (SELECT 1 AS place, 'preview_done' AS kind, 'image.ready' AS event
     UNION ALL SELECT 1, 'completed', 'image.ready'    -- of a job without a preview of its own
     UNION ALL SELECT 2, 'completed', 'image.completed'
     UNION ALL SELECT 2, 'failed', 'image.failed'
     UNION ALL SELECT 2, 'deleted', 'image.deleted'
     UNION ALL SELECT 2, 'expired', 'image.expired') AS told,
    webhook_endpoints AS endpoint
  WHERE job.job_id = NEW.job_id AND told.kind = NEW.event_type
    AND NOT (told.event = 'image.ready' AND told.kind = 'completed' AND job.preview = 'done')
    AND endpoint.configured = 1 AND endpoint.switched_off_at IS NULL
    AND told.event IN (SELECT value FROM json_each(endpoint.events))
    AND (endpoint.buckets = '[]' OR job.storage_bucket IN (SELECT value FROM json_each(endpoint.buckets)))
  ORDER BY told.place;
END;

CREATE TRIGGER outbox_joined AFTER INSERT ON webhook_outbox WHEN NEW.state = 'waiting'
BEGIN
  UPDATE webhook_endpoints SET waiting = waiting + 1 WHERE name = NEW.webhook;
  UPDATE webhook_endpoints SET overflowed_at = NEW.waiting_since WHERE name = NEW.webhook AND waiting > most_waiting;
  UPDATE webhook_outbox SET state = 'given_up', ended_at = NEW.waiting_since
  WHERE id = (SELECT min(id) FROM webhook_outbox WHERE webhook = NEW.webhook AND state = 'waiting')
    AND (SELECT waiting > most_waiting FROM webhook_endpoints WHERE name = NEW.webhook);
END;

CREATE TRIGGER outbox_left AFTER UPDATE OF state ON webhook_outbox WHEN OLD.state = 'waiting' AND NEW.state <> 'waiting'
BEGIN
  UPDATE webhook_endpoints SET waiting = waiting - 1 WHERE name = NEW.webhook;
END;

CREATE TRIGGER outbox_rejoined AFTER UPDATE OF state ON webhook_outbox WHEN OLD.state <> 'waiting' AND NEW.state = 'waiting'
BEGIN
  UPDATE webhook_endpoints SET waiting = waiting + 1 WHERE name = NEW.webhook;
END;

CREATE TRIGGER outbox_dropped AFTER DELETE ON webhook_outbox WHEN OLD.state = 'waiting'
BEGIN
  UPDATE webhook_endpoints SET waiting = waiting - 1 WHERE name = OLD.webhook;
END;
