-- API keys and upload tickets, by the SHA-256 of what their holder sends. Tables of their own: neither belongs to a job.

CREATE TABLE api_keys (
  key_id       TEXT PRIMARY KEY,
  digest       BLOB NOT NULL UNIQUE,
  name         TEXT NOT NULL,                          -- for people
  org_id       TEXT NOT NULL,
  user_id      TEXT NOT NULL,                          -- whom it acts as
  permissions  TEXT NOT NULL,                          -- JSON list
  narrower     TEXT NOT NULL,                          -- JSON, as the claim imgsvc
  created_at   TEXT NOT NULL,
  last_used_at TEXT,                                   -- to the hour
  revoked_at   TEXT
) STRICT;

CREATE INDEX keys_of_user ON api_keys (org_id, user_id);

CREATE TABLE upload_tickets (
  ticket_id     TEXT PRIMARY KEY,
  digest        BLOB NOT NULL UNIQUE,
  org_id        TEXT NOT NULL,
  user_id       TEXT NOT NULL,                         -- its issuer, whom it acts as
  key_id        TEXT,                                  -- the API key that it was issued by
  bucket        TEXT NOT NULL,
  narrower      TEXT NOT NULL,                         -- JSON, as the claim imgsvc: the issuer's limits and its own
  metadata      TEXT NOT NULL,                         -- JSON object, which wins over the form's
  expires_after INTEGER,                               -- of each image, in seconds from its acceptance
  uploads_left  INTEGER NOT NULL CHECK (uploads_left >= 0),
  created_at    TEXT NOT NULL,
  expires_at    TEXT NOT NULL
) STRICT;

CREATE INDEX tickets_of_user ON upload_tickets (org_id, user_id);
CREATE INDEX tickets_over ON upload_tickets (expires_at);

ALTER TABLE processing_jobs ADD COLUMN ticket_id TEXT;  -- the ticket that it was uploaded with
