-- Lists of images, newest first, by each filter. What else a list may ask for stands at the end of an index, so that
-- looking at rows that do not match reads no row. The first start of an old database reads all rows once for them.

ALTER TABLE processing_jobs ADD COLUMN folded_name TEXT;  -- the file name, case folded; NULL once deleted

CREATE INDEX images_of_user ON processing_jobs
  (org_id, user_id, created_at, image_id, status, storage_bucket, folded_name) WHERE deleted_at IS NULL;
CREATE INDEX images_of_user_in_bucket ON processing_jobs
  (org_id, user_id, storage_bucket, created_at, image_id, status, folded_name) WHERE deleted_at IS NULL;
CREATE INDEX images_of_user_unfinished ON processing_jobs  -- small: most images are completed
  (org_id, user_id, status, created_at, image_id, storage_bucket) WHERE deleted_at IS NULL AND status <> 'completed';
CREATE INDEX images_of_user_by_name ON processing_jobs
  (org_id, user_id, folded_name, created_at, image_id, status, storage_bucket) WHERE deleted_at IS NULL;
CREATE INDEX images_of_org ON processing_jobs
  (org_id, created_at, image_id, status, storage_bucket, folded_name) WHERE deleted_at IS NULL;
CREATE INDEX images_in_bucket ON processing_jobs
  (storage_bucket, created_at, image_id, org_id, status, folded_name) WHERE deleted_at IS NULL;
CREATE INDEX images_by_name ON processing_jobs
  (folded_name, created_at, image_id, org_id, status, storage_bucket) WHERE deleted_at IS NULL;
CREATE INDEX images_by_sha256 ON processing_jobs
  (sha256, created_at, image_id, org_id, user_id) WHERE deleted_at IS NULL;

-- These serve the operator's lists too, and what they served before.
DROP INDEX jobs_recent;
CREATE INDEX jobs_recent ON processing_jobs
  (created_at, image_id, org_id, status, storage_bucket, folded_name) WHERE deleted_at IS NULL;
DROP INDEX jobs_recent_of_status;
CREATE INDEX jobs_recent_of_status ON processing_jobs
  (status, created_at, image_id, org_id, storage_bucket, folded_name) WHERE deleted_at IS NULL;

-- rowid: up to here the names of an older version's rows are folded; SQLite folds ASCII only. NULL: all are.
ALTER TABLE job_counting ADD COLUMN names_upto INTEGER;
UPDATE job_counting SET names_upto = 0 WHERE EXISTS (SELECT 1 FROM processing_jobs);
