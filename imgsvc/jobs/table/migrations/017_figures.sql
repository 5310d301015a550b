-- What the dashboard shows of a week, and whether the queue grows. Two small tables: a sum over a week's jobs would read
-- them all. Both are written once a minute, from what is there, so a minute that was missed is made up for.

CREATE TABLE job_hours (                               -- what ended in one hour, of job_minutes; eight days are kept
  hour               TEXT PRIMARY KEY,                 -- "2026-03-01T12"
  completed          INTEGER NOT NULL,
  failed             INTEGER NOT NULL,
  processing_seconds REAL NOT NULL,                    -- sums over the completed ones, as in job_minutes
  ready_seconds      REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE queue_minutes (                           -- how many jobs waited in one minute; a day is kept
  minute  TEXT PRIMARY KEY,                            -- "2026-03-01T12:00"
  waiting INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Lists of jobs by their error, and the groups of failures. Small: a completed job has no error.
CREATE INDEX jobs_by_error ON processing_jobs
  (error_code, created_at, image_id, status, org_id, user_id, storage_bucket, folded_name, failed_at)
  WHERE deleted_at IS NULL AND error_code IS NOT NULL;
