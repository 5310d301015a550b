-- What is made of a completed image later (a crop around another point, a new size, a further format) is a row of its
-- own, so that the image's row stays completed and what it names stays served. Both tables are empty at first.

ALTER TABLE processing_jobs ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;  -- the last `n` of a key `…_r{n}.…`

CREATE TABLE renders (
  render_id       INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used again: it is a part of the fence
  job_id          TEXT NOT NULL,
  image_id        TEXT NOT NULL,
  kind            TEXT NOT NULL,                       -- why it is made
  generation      INTEGER NOT NULL DEFAULT 0,          -- raised by each claim: the fence
  recipe          TEXT NOT NULL,                       -- JSON: the variants to make, with their settings
  keys            TEXT NOT NULL,                       -- JSON {variant: key}: what it puts, or may have put
  source          TEXT NOT NULL CHECK (source IN ('staged', 'variant')),  -- what it is made from
  backend         TEXT NOT NULL,                       -- where it puts: the image's at the last claim
  state           TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'failed')),  -- a row that is done is dropped
  priority        INTEGER NOT NULL,                    -- the lowest goes first
  render_bytes    INTEGER NOT NULL,                    -- estimated peak memory
  attempts        INTEGER NOT NULL DEFAULT 0,
  starts          INTEGER NOT NULL DEFAULT 0,          -- claims since the last run that came to an end
  deaths          INTEGER NOT NULL DEFAULT 0,          -- workers that died of it
  next_attempt_at TEXT,
  error_code      TEXT,
  error           TEXT,                                -- in plain words
  created_at      TEXT NOT NULL
) STRICT;

CREATE INDEX renders_by_job ON renders (job_id);
CREATE INDEX renders_waiting ON renders (priority, render_id) WHERE state = 'waiting' AND next_attempt_at IS NULL;
CREATE INDEX renders_due ON renders (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

-- Files that are, or may be, in storage and that no image's row names any more, until their removal is confirmed.
CREATE TABLE retired_keys (
  key_id         INTEGER PRIMARY KEY,
  job_id         TEXT NOT NULL,
  backend        TEXT NOT NULL,
  bucket         TEXT NOT NULL,
  key            TEXT NOT NULL,
  variant        TEXT NOT NULL,
  remove_at      TEXT,                                 -- when the file goes; NULL: it is gone
  redirect_until TEXT,                                 -- until then its URL leads to the variant's newest; NULL: never given out
  UNIQUE (backend, bucket, key)
) STRICT;

CREATE INDEX retired_by_job ON retired_keys (job_id);
CREATE INDEX retired_due ON retired_keys (remove_at) WHERE remove_at IS NOT NULL;
CREATE INDEX retired_over ON retired_keys (redirect_until) WHERE remove_at IS NULL;
