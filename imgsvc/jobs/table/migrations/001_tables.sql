-- Times are RFC 3339 text in UTC with six decimals and "+00:00", so that they compare as text.
-- A file exists exactly where its column says so: staging_path and processed_paths are cleared only after the
-- file is known to be gone, and a row that names a file it no longer needs is work for housekeeping.

CREATE TABLE processing_jobs (
  job_id              TEXT PRIMARY KEY,
  image_id            TEXT NOT NULL UNIQUE,
  status              TEXT NOT NULL CHECK (status IN ('pending', 'processing', 'retrying', 'completed', 'failed')),
  storage_bucket      TEXT NOT NULL,
  staging_path        TEXT,                            -- file name in the staging folder
  processed_paths     TEXT NOT NULL DEFAULT '{}',      -- JSON {variant: key}
  processing_metadata TEXT NOT NULL DEFAULT '{}',      -- JSON: what was measured, and each variant's size and digest
  attempt_count       INTEGER NOT NULL DEFAULT 0,      -- failed attempts of the service's own making
  max_retries         INTEGER NOT NULL,                -- attempts allowed
  last_error          TEXT,                            -- in plain words; NULL once completed
  created_at          TEXT NOT NULL,
  started_at          TEXT,
  completed_at        TEXT,

  error_code          TEXT,
  retryable           INTEGER,
  next_attempt_at     TEXT,
  failed_at           TEXT,
  deleted_at          TEXT,

  user_id             TEXT,                            -- the token's sub
  org_id              TEXT,
  original_filename   TEXT,
  client_metadata     TEXT NOT NULL DEFAULT '{}',      -- JSON object, as sent
  trace_id            TEXT NOT NULL,
  idempotency_key     TEXT,
  idempotency_digest  TEXT,

  mime_type           TEXT NOT NULL,
  content_length      INTEGER NOT NULL,                -- bytes
  sha256              TEXT NOT NULL,                   -- of the uploaded bytes, hex
  pixels              INTEGER NOT NULL,
  preview_bytes       INTEGER,                         -- estimated peak memory; NULL: no cheap preview
  render_bytes        INTEGER NOT NULL,
  storage_backend     TEXT NOT NULL,
  recipe              TEXT NOT NULL,                   -- JSON: the variant settings at accept

  queue               TEXT CHECK (queue IN ('previews', 'renders')),  -- waiting for; NULL: not waiting
  turn                INTEGER NOT NULL,                -- the lowest goes next
  run                 INTEGER NOT NULL DEFAULT 0,      -- raised by each claim and by a deletion: the fence
  starts              INTEGER NOT NULL DEFAULT 0,      -- claims since the last run that came to an end
  deaths              INTEGER NOT NULL DEFAULT 0,      -- workers that died of it
  preview             TEXT NOT NULL CHECK (preview IN ('wanted', 'done', 'failed', 'none'))
) STRICT;

CREATE INDEX jobs_waiting ON processing_jobs (queue, turn, created_at) WHERE queue IS NOT NULL;
CREATE INDEX jobs_by_user ON processing_jobs (org_id, user_id, turn);
CREATE INDEX jobs_by_turn ON processing_jobs (turn);
CREATE INDEX jobs_by_created ON processing_jobs (created_at);
CREATE INDEX jobs_by_status ON processing_jobs (status) WHERE deleted_at IS NULL;
CREATE INDEX jobs_running ON processing_jobs (job_id) WHERE status = 'processing';
CREATE INDEX jobs_due ON processing_jobs (next_attempt_at) WHERE status = 'retrying';
CREATE INDEX jobs_completed ON processing_jobs (completed_at) WHERE status = 'completed';
CREATE INDEX jobs_failed ON processing_jobs (failed_at) WHERE status = 'failed';
CREATE INDEX jobs_staged ON processing_jobs (job_id) WHERE staging_path IS NOT NULL;
CREATE INDEX jobs_leftover ON processing_jobs (job_id)
  WHERE (status = 'completed' AND staging_path IS NOT NULL)
     OR (status = 'failed' AND (processed_paths <> '{}' OR (retryable = 0 AND staging_path IS NOT NULL)))
     OR (deleted_at IS NOT NULL AND (staging_path IS NOT NULL OR processed_paths <> '{}'));
CREATE UNIQUE INDEX jobs_idempotency ON processing_jobs (org_id, user_id, idempotency_key)
  WHERE idempotency_key IS NOT NULL;

CREATE TABLE image_upload_events (                     -- append-only audit
  id         INTEGER PRIMARY KEY,
  event_type TEXT NOT NULL,
  image_id   TEXT,
  job_id     TEXT,
  metadata   TEXT NOT NULL DEFAULT '{}',
  created_at TEXT NOT NULL
) STRICT;

CREATE INDEX events_by_job ON image_upload_events (job_id);
CREATE INDEX events_by_created ON image_upload_events (created_at);

CREATE TABLE upload_rate_limits (
  org_id       TEXT NOT NULL,
  user_id      TEXT NOT NULL,
  window_start TEXT NOT NULL,
  upload_count INTEGER NOT NULL,
  PRIMARY KEY (org_id, user_id)
) STRICT, WITHOUT ROWID;
