-- What the service would otherwise count at every start, which takes the longer the more rows there are. A table of sums
-- is one more thing to keep right, so triggers do it: in the transaction that changes a job, whichever statement does.

CREATE TABLE job_sums (
  kind  TEXT NOT NULL CHECK (kind IN ('jobs', 'bytes')),  -- jobs of a status, or stored bytes of a variant
  name  TEXT NOT NULL,
  total INTEGER NOT NULL,                                 -- of rows that are not deleted
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_minutes (                                -- what ended in one minute; a day is kept
  minute             TEXT PRIMARY KEY,                    -- "2026-03-01T12:00"
  completed          INTEGER NOT NULL,
  failed             INTEGER NOT NULL,
  processing_seconds REAL NOT NULL,                       -- sums over the completed ones: since the first claim,
  ready_seconds      REAL NOT NULL                        -- since the receipt
) STRICT, WITHOUT ROWID;

-- One row: how far the jobs of an older version are counted. NULL: wholly.
CREATE TABLE job_counting (
  bytes_upto   INTEGER,                                   -- rowid: no later row is in the bytes of job_sums yet
  minutes_from TEXT                                       -- no job that ended earlier is in job_minutes yet
) STRICT;

INSERT INTO job_counting
SELECT iif(there, 0, NULL), iif(there, strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'), NULL)
FROM (SELECT EXISTS (SELECT 1 FROM processing_jobs) AS there);

INSERT INTO job_sums (kind, name, total)
VALUES ('jobs', 'pending', 0), ('jobs', 'processing', 0), ('jobs', 'retrying', 0), ('jobs', 'completed', 0), ('jobs', 'failed', 0);

-- From an index alone, and only here: 0.1 s for a million rows. What must read the rows is counted in the background.
UPDATE job_sums SET total = counted.jobs
FROM (SELECT status, count(*) AS jobs FROM processing_jobs WHERE deleted_at IS NULL GROUP BY status) AS counted
WHERE kind = 'jobs' AND name = counted.status;

CREATE TRIGGER job_inserted AFTER INSERT ON processing_jobs WHEN NEW.deleted_at IS NULL
BEGIN
  UPDATE job_sums SET total = total + 1 WHERE kind = 'jobs' AND name = NEW.status;
END;

CREATE TRIGGER job_dropped AFTER DELETE ON processing_jobs WHEN OLD.deleted_at IS NULL
BEGIN
  UPDATE job_sums SET total = total - 1 WHERE kind = 'jobs' AND name = OLD.status;
END;

CREATE TRIGGER job_moved AFTER UPDATE OF status, deleted_at ON processing_jobs
WHEN OLD.status <> NEW.status OR OLD.deleted_at IS NOT NEW.deleted_at
BEGIN
  UPDATE job_sums SET total = total - 1 WHERE kind = 'jobs' AND name = OLD.status AND OLD.deleted_at IS NULL;
  UPDATE job_sums SET total = total + 1 WHERE kind = 'jobs' AND name = NEW.status AND NEW.deleted_at IS NULL;
END;

CREATE TRIGGER job_ended AFTER UPDATE OF status ON processing_jobs
WHEN OLD.status <> NEW.status AND NEW.status IN ('completed', 'failed')
BEGIN
  INSERT INTO job_minutes (minute, completed, failed, processing_seconds, ready_seconds)
  SELECT substr(ended_at, 1, 16), ok, 1 - ok,
    iif(ok, coalesce(julianday(ended_at) - julianday(coalesce(NEW.started_at, began_at)), 0) * 86400, 0.0),
    iif(ok, coalesce(julianday(ended_at) - julianday(began_at), 0) * 86400, 0.0)
  FROM (SELECT NEW.status = 'completed' AS ok, iif(NEW.status = 'completed', NEW.completed_at, NEW.failed_at) AS ended_at,
    coalesce(NEW.retried_at, NEW.created_at) AS began_at)
  WHERE ended_at IS NOT NULL
  ON CONFLICT DO UPDATE SET completed = completed + excluded.completed, failed = failed + excluded.failed,
    processing_seconds = processing_seconds + excluded.processing_seconds,
    ready_seconds = ready_seconds + excluded.ready_seconds;
  DELETE FROM job_minutes
  WHERE minute < strftime('%Y-%m-%dT%H:%M', coalesce(NEW.completed_at, NEW.failed_at), '-25 hours');
END;

-- The stored bytes of one row: of a completed image that is not deleted, as its metadata lists them. Damaged metadata
-- lists nothing; it must not keep the row from being changed.
CREATE VIEW job_bytes AS
SELECT job.rowid AS row, variant.key AS name,
  iif(variant.type = 'object', max(0, min(1 << 50, coalesce(CAST(json_extract(variant.value, '$.size_bytes') AS INTEGER), 0))), 0) AS bytes
FROM processing_jobs AS job,
  json_each(iif(json_valid(job.processing_metadata), job.processing_metadata, '{}'), '$.variants') AS variant
WHERE variant.key IS NOT NULL AND +job.status = 'completed' AND +job.deleted_at IS NULL;  -- +: a page of rows goes by rowid, not by an index of these

CREATE TRIGGER job_stored AFTER UPDATE OF status, deleted_at, processing_metadata ON processing_jobs
WHEN NEW.status = 'completed' AND NEW.deleted_at IS NULL
  AND NEW.rowid <= coalesce((SELECT bytes_upto FROM job_counting), NEW.rowid)
BEGIN
  INSERT INTO job_sums (kind, name, total)
  SELECT 'bytes', name, bytes FROM job_bytes WHERE row = NEW.rowid
  ON CONFLICT DO UPDATE SET total = total + excluded.total;
END;

CREATE TRIGGER job_stored_at_once AFTER INSERT ON processing_jobs
WHEN NEW.status = 'completed' AND NEW.deleted_at IS NULL
  AND NEW.rowid <= coalesce((SELECT bytes_upto FROM job_counting), NEW.rowid)
BEGIN
  INSERT INTO job_sums (kind, name, total)
  SELECT 'bytes', name, bytes FROM job_bytes WHERE row = NEW.rowid
  ON CONFLICT DO UPDATE SET total = total + excluded.total;
END;

CREATE TRIGGER job_stored_no_more BEFORE UPDATE OF status, deleted_at, processing_metadata ON processing_jobs
WHEN OLD.status = 'completed' AND OLD.deleted_at IS NULL
  AND OLD.rowid <= coalesce((SELECT bytes_upto FROM job_counting), OLD.rowid)
BEGIN
  INSERT INTO job_sums (kind, name, total)
  SELECT 'bytes', name, -bytes FROM job_bytes WHERE row = OLD.rowid
  ON CONFLICT DO UPDATE SET total = total + excluded.total;
END;

CREATE TRIGGER job_dropped_stored BEFORE DELETE ON processing_jobs
WHEN OLD.status = 'completed' AND OLD.deleted_at IS NULL
  AND OLD.rowid <= coalesce((SELECT bytes_upto FROM job_counting), OLD.rowid)
BEGIN
  INSERT INTO job_sums (kind, name, total)
  SELECT 'bytes', name, -bytes FROM job_bytes WHERE row = OLD.rowid
  ON CONFLICT DO UPDATE SET total = total + excluded.total;
END;
