-- `imgsvc images render`: variants of many images, rendered again. A table of its own, since the task outlives the service that
-- it was ordered from, and its rows in `renders`, of which there are never more than some hundreds at a time.

CREATE TABLE render_tasks (
  task_id      TEXT PRIMARY KEY,
  state        TEXT NOT NULL CHECK (state IN ('running', 'done', 'cancelled')),
  recipe       TEXT NOT NULL,                          -- JSON: the variants as the settings had them then
  variants     TEXT,                                   -- JSON list of names; NULL: all
  bucket       TEXT,                                   -- NULL: all
  missing_only INTEGER NOT NULL,
  after_row    INTEGER NOT NULL DEFAULT 0,             -- the rowid up to which images have been looked at
  upto_row     INTEGER NOT NULL,                       -- the last rowid when it was ordered
  examined     INTEGER NOT NULL DEFAULT 0,             -- images
  ordered      INTEGER NOT NULL DEFAULT 0,
  rendered     INTEGER NOT NULL DEFAULT 0,
  from_variant INTEGER NOT NULL DEFAULT 0,             -- those of them that were made from the largest variant
  failed       INTEGER NOT NULL DEFAULT 0,
  began_at     TEXT NOT NULL,
  ended_at     TEXT
) STRICT;

-- For its report: the first images that failed or were made from a variant.
CREATE TABLE render_findings (
  task_id  TEXT NOT NULL,
  image_id TEXT NOT NULL,
  kind     TEXT NOT NULL CHECK (kind IN ('failed', 'from_variant')),
  reason   TEXT                                        -- in plain words; the variant that it was made from
) STRICT;

CREATE INDEX findings_by_task ON render_findings (task_id, kind);

ALTER TABLE renders ADD COLUMN task_id TEXT;           -- the task that ordered it; NULL: none
CREATE INDEX renders_by_task ON renders (task_id) WHERE task_id IS NOT NULL;
