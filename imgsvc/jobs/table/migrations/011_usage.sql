-- What each user and organisation has stored. A table of its own: a quota must be exact in the transaction that accepts
-- an upload, and a sum over a user's rows would take the longer the more there are. Triggers keep it right, in the
-- transaction that changes a row, whichever statement does. The row of an organisation has an empty user.

CREATE TABLE usage (
  org_id   TEXT NOT NULL,
  user_id  TEXT NOT NULL,
  images   INTEGER NOT NULL,                           -- completed ones
  bytes    INTEGER NOT NULL,                           -- of their files
  reserved INTEGER NOT NULL,                           -- bytes of the uploads whose jobs have not ended
  PRIMARY KEY (org_id, user_id)
) STRICT, WITHOUT ROWID;

-- rowid: no later row is in the table yet. NULL: all are.
ALTER TABLE job_counting ADD COLUMN usage_upto INTEGER;
UPDATE job_counting SET usage_upto = 0 WHERE EXISTS (SELECT 1 FROM processing_jobs);

-- What one row takes. Whatever is stored beside the variants is added here and nowhere else.
CREATE VIEW job_usage (row, org_id, user_id, images, bytes, reserved) AS
SELECT rowid, org_id, user_id, status = 'completed',
  coalesce((SELECT sum(bytes) FROM job_bytes WHERE job_bytes.row = processing_jobs.rowid), 0),
  iif(status IN ('pending', 'processing', 'retrying'), content_length, 0)
FROM processing_jobs
WHERE deleted_at IS NULL AND user_id IS NOT NULL AND org_id IS NOT NULL;

CREATE TRIGGER usage_inserted AFTER INSERT ON processing_jobs
WHEN NEW.rowid <= coalesce((SELECT usage_upto FROM job_counting), NEW.rowid)
BEGIN
  INSERT INTO usage SELECT org_id, user_id, images, bytes, reserved FROM job_usage WHERE row = NEW.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
  INSERT INTO usage SELECT org_id, '', images, bytes, reserved FROM job_usage WHERE row = NEW.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
END;

CREATE TRIGGER usage_before BEFORE UPDATE OF status, deleted_at, processing_metadata, user_id, org_id ON processing_jobs
WHEN OLD.rowid <= coalesce((SELECT usage_upto FROM job_counting), OLD.rowid)
  AND (OLD.status IN ('completed', 'failed') OR NEW.status IN ('completed', 'failed')
    OR OLD.deleted_at IS NOT NEW.deleted_at OR OLD.user_id IS NOT NEW.user_id OR OLD.org_id IS NOT NEW.org_id)
BEGIN
  INSERT INTO usage SELECT org_id, user_id, -images, -bytes, -reserved FROM job_usage WHERE row = OLD.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
  INSERT INTO usage SELECT org_id, '', -images, -bytes, -reserved FROM job_usage WHERE row = OLD.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
END;

CREATE TRIGGER usage_after AFTER UPDATE OF status, deleted_at, processing_metadata, user_id, org_id ON processing_jobs
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

CREATE TRIGGER usage_dropped BEFORE DELETE ON processing_jobs
WHEN OLD.rowid <= coalesce((SELECT usage_upto FROM job_counting), OLD.rowid)
BEGIN
  INSERT INTO usage SELECT org_id, user_id, -images, -bytes, -reserved FROM job_usage WHERE row = OLD.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
  INSERT INTO usage SELECT org_id, '', -images, -bytes, -reserved FROM job_usage WHERE row = OLD.rowid
  ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes, reserved = reserved + excluded.reserved;
  DELETE FROM usage WHERE org_id = OLD.org_id AND user_id IN (OLD.user_id, '') AND images = 0 AND bytes = 0 AND reserved = 0;
END;
