-- People who are erased. Tables of their own: an erasure is about no single job, and outlives all rows of the person. While
-- it runs its row names the person; once it has ended only a salted hash is left, by which the person can be recognized
-- but not found.

CREATE TABLE erasures (
  number     INTEGER PRIMARY KEY AUTOINCREMENT,        -- the order, which an upload compares with that of its begin
  erasure_id TEXT NOT NULL UNIQUE,
  org_id     TEXT,                                     -- NULL once it has ended
  user_id    TEXT,
  salt       BLOB NOT NULL,
  person     BLOB NOT NULL,                            -- SHA-256 of the salt, the organisation and the user
  mark       TEXT NOT NULL,                            -- random; in the audit trail it stands for what was erased
  step       TEXT NOT NULL CHECK (step IN ('images', 'tables', 'events', 'files', 'done')),
  position   INTEGER NOT NULL DEFAULT 0,               -- the last audit event that was looked at
  counts     TEXT NOT NULL DEFAULT '{}',               -- JSON {what: number}
  repeated   INTEGER NOT NULL DEFAULT 0,               -- 1: after a restore
  started_at TEXT NOT NULL,
  ended_at   TEXT
) STRICT;

CREATE UNIQUE INDEX erasures_running ON erasures (org_id, user_id) WHERE ended_at IS NULL;

-- The deleted images of the erasures that run: their files must be gone before these end. A column of processing_jobs would
-- need an index, for which the first start of an old database would read all rows.
CREATE TABLE erased_jobs (
  number INTEGER NOT NULL,
  job_id TEXT NOT NULL,
  PRIMARY KEY (number, job_id)
) STRICT, WITHOUT ROWID;

-- Files that were replaced count for their user until they are gone, beside what job_usage says of the image's row. Triggers
-- of their own, so that whatever else is stored can be added to job_usage alone. 0: an older version retired the file, or it
-- may never have been written.
ALTER TABLE retired_keys ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER retired_counted AFTER INSERT ON retired_keys WHEN NEW.remove_at IS NOT NULL AND NEW.size_bytes > 0
BEGIN
  INSERT INTO usage SELECT org_id, user_id, 0, NEW.size_bytes, 0 FROM processing_jobs
  WHERE job_id = NEW.job_id AND deleted_at IS NULL AND org_id IS NOT NULL AND user_id IS NOT NULL
  ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
  INSERT INTO usage SELECT org_id, '', 0, NEW.size_bytes, 0 FROM processing_jobs
  WHERE job_id = NEW.job_id AND deleted_at IS NULL AND org_id IS NOT NULL AND user_id IS NOT NULL
  ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER retired_gone AFTER UPDATE OF remove_at ON retired_keys
WHEN OLD.remove_at IS NOT NULL AND NEW.remove_at IS NULL AND OLD.size_bytes > 0
BEGIN
  UPDATE usage SET bytes = bytes - OLD.size_bytes FROM processing_jobs AS job
  WHERE job.job_id = OLD.job_id AND job.deleted_at IS NULL AND usage.org_id = job.org_id AND usage.user_id IN (job.user_id, '');
END;

CREATE TRIGGER retired_dropped BEFORE DELETE ON retired_keys WHEN OLD.remove_at IS NOT NULL AND OLD.size_bytes > 0
BEGIN
  UPDATE usage SET bytes = bytes - OLD.size_bytes FROM processing_jobs AS job
  WHERE job.job_id = OLD.job_id AND job.deleted_at IS NULL AND usage.org_id = job.org_id AND usage.user_id IN (job.user_id, '');
END;

-- Before the row loses its user. What usage_after then finds to be nothing, it removes.
CREATE TRIGGER retired_of_deleted BEFORE UPDATE OF deleted_at ON processing_jobs
WHEN OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL
  AND EXISTS (SELECT 1 FROM retired_keys WHERE job_id = OLD.job_id AND remove_at IS NOT NULL AND size_bytes > 0)
BEGIN
  UPDATE usage SET bytes = bytes - (
    SELECT sum(size_bytes) FROM retired_keys WHERE job_id = OLD.job_id AND remove_at IS NOT NULL)
  WHERE org_id = OLD.org_id AND user_id IN (OLD.user_id, '');
END;
