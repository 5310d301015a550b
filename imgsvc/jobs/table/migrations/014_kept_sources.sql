-- The source that `[images] keep_source` keeps: its key, named since the upload was accepted, and once it is kept its
-- size in bytes and its SHA-256. NULL: none.
ALTER TABLE processing_jobs ADD COLUMN source_key TEXT;
ALTER TABLE processing_jobs ADD COLUMN source_bytes INTEGER;
ALTER TABLE processing_jobs ADD COLUMN source_sha256 TEXT;

-- By rowid, as `imgsvc images drop-sources` goes through them. Empty at first.
CREATE INDEX sources_kept ON processing_jobs (source_key) WHERE source_sha256 IS NOT NULL;

-- What one row takes, as in 011_usage.sql, and its kept source. The triggers of an UPDATE look at that column too.
DROP VIEW job_usage;
CREATE VIEW job_usage (row, org_id, user_id, images, bytes, reserved) AS
SELECT rowid, org_id, user_id, status = 'completed',
  coalesce((SELECT sum(bytes) FROM job_bytes WHERE job_bytes.row = processing_jobs.rowid), 0)
    + iif(status = 'completed', coalesce(source_bytes, 0), 0),
  iif(status IN ('pending', 'processing', 'retrying'), content_length, 0)
FROM processing_jobs
WHERE deleted_at IS NULL AND user_id IS NOT NULL AND org_id IS NOT NULL;

DROP TRIGGER usage_before;
DROP TRIGGER usage_after;

CREATE TRIGGER usage_before
BEFORE UPDATE OF status, deleted_at, processing_metadata, source_bytes, user_id, org_id ON processing_jobs
WHEN OLD.rowid <= coalesce((SELECT usage_upto FROM job_counting), OLD.rowid)
  AND (OLD.status IN ('completed', 'failed') OR NEW.status IN ('completed', 'failed')
    OR OLD.deleted_at IS NOT NEW.deleted_at OR OLD.user_id IS NOT NEW.user_id OR OLD.org_id IS NOT NEW.org_id)
BEGIN
  INSERT INTO usage SELECT org_id, user_id, -images, -bytes, -reserved FROM job_usage WHERE row = OLD.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
  INSERT INTO usage SELECT org_id, '', -images, -bytes, -reserved FROM job_usage WHERE row = OLD.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
END;

CREATE TRIGGER usage_after
AFTER UPDATE OF status, deleted_at, processing_metadata, source_bytes, user_id, org_id ON processing_jobs
WHEN NEW.rowid <= coalesce((SELECT usage_upto FROM job_counting), NEW.rowid)
  AND (OLD.status IN ('completed', 'failed') OR NEW.status IN ('completed', 'failed')
    OR OLD.deleted_at IS NOT NEW.deleted_at OR OLD.user_id IS NOT NEW.user_id OR OLD.org_id IS NOT NEW.org_id)
BEGIN
  INSERT INTO usage SELECT org_id, user_id, images, bytes, reserved FROM job_usage WHERE row = NEW.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
  INSERT INTO usage SELECT org_id, '', images, bytes, reserved FROM job_usage WHERE row = NEW.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
  DELETE FROM usage WHERE org_id = OLD.org_id AND user_id IN (OLD.user_id, '') AND images = 0 AND bytes = 0 AND reserved = 0;
END;
