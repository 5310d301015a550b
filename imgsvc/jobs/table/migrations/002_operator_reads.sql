-- What the operator's side needs: looks at the newest that are not deleted, and at the current windows, without a scan.

ALTER TABLE processing_jobs ADD COLUMN retried_at TEXT;  -- when the operator let a failed job begin anew

DROP INDEX jobs_waiting;
CREATE INDEX jobs_waiting ON processing_jobs (queue, turn, created_at, retried_at) WHERE queue IS NOT NULL;
DROP INDEX jobs_by_created;
CREATE INDEX jobs_recent ON processing_jobs (created_at) WHERE deleted_at IS NULL;
DROP INDEX jobs_by_status;
CREATE INDEX jobs_recent_of_status ON processing_jobs (status, created_at) WHERE deleted_at IS NULL;
CREATE INDEX jobs_recent_failed ON processing_jobs (failed_at) WHERE status = 'failed' AND deleted_at IS NULL;
CREATE INDEX windows_by_start ON upload_rate_limits (window_start);
CREATE INDEX windows_by_count ON upload_rate_limits (upload_count);
