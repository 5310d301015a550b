-- All SQL of the job path. Each statement stands under its `-- name:`; `:names` are parameters.
-- Every UPDATE that ends or moves a run says `run = :run AND deleted_at IS NULL`: a run that was overtaken changes nothing.

-- name: insert_job
-- A new job joins at the head of the line, or one turn after its user's last, whichever is later.
INSERT INTO processing_jobs (
  job_id, image_id, status, storage_bucket, staging_path, max_retries, created_at, user_id, org_id,
  original_filename, client_metadata, trace_id, mime_type, content_length, sha256, pixels, preview_bytes,
  render_bytes, storage_backend, recipe, preview, queue, turn)
SELECT
  :job_id, :image_id, 'pending', :storage_bucket, :staging_path, :max_retries, :created_at, :user_id, :org_id,
  :original_filename, :client_metadata, :trace_id, :mime_type, :content_length, :sha256, :pixels, :preview_bytes,
  :render_bytes, :storage_backend, :recipe, :preview, iif(:preview = 'wanted', 'previews', 'renders'),
  max(
    coalesce(
      (SELECT min(turn) FROM (
        SELECT min(turn) AS turn FROM processing_jobs WHERE queue = 'previews'
        UNION ALL
        SELECT min(turn) FROM processing_jobs WHERE queue = 'renders')),
      (SELECT max(turn) FROM processing_jobs),
      0),
    1 + coalesce((SELECT max(turn) FROM processing_jobs WHERE org_id = :org_id AND user_id = :user_id), 0))

-- name: insert_event
INSERT INTO image_upload_events (event_type, image_id, job_id, metadata, created_at)
VALUES (:event_type, :image_id, :job_id, :metadata, :created_at)

-- name: next_waiting
SELECT * FROM processing_jobs WHERE queue = :queue ORDER BY turn, created_at LIMIT 1

-- name: claim
UPDATE processing_jobs
SET status = 'processing', queue = NULL, run = run + 1, starts = starts + 1, started_at = coalesce(started_at, :now)
WHERE job_id = :job_id AND queue = :queue
RETURNING *

-- name: give_back
-- The service is stopping: the run never happened.
UPDATE processing_jobs
SET status = 'pending', starts = max(0, starts - 1), queue = iif(preview = 'wanted', 'previews', 'renders')
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: end_preview
-- However the preview ended, the job goes on to the renders.
UPDATE processing_jobs
SET queue = 'renders', starts = 0, preview = :preview,
    attempt_count = attempt_count + :death, deaths = deaths + :death, processed_paths = :processed_paths,
    processing_metadata = :processing_metadata
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: complete
UPDATE processing_jobs
SET status = 'completed', completed_at = :now, starts = 0, last_error = NULL, error_code = NULL, retryable = NULL,
    processed_paths = :processed_paths, processing_metadata = :processing_metadata
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: again_later
UPDATE processing_jobs
SET status = 'retrying', starts = 0, attempt_count = attempt_count + 1, deaths = deaths + :death,
    last_error = :message, error_code = :code, retryable = 1, next_attempt_at = :next_attempt_at
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: fail
-- The paths of everything that may have been put, so that housekeeping removes it.
UPDATE processing_jobs
SET status = 'failed', failed_at = :now, starts = 0, queue = NULL, next_attempt_at = NULL,
    attempt_count = attempt_count + :attempt, deaths = deaths + :death,
    last_error = :message, error_code = :code, retryable = :retryable,
    preview = iif(preview = 'none', 'none', 'wanted'), processed_paths = :processed_paths
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: release_due
UPDATE processing_jobs
SET status = 'pending', next_attempt_at = NULL, queue = iif(preview = 'wanted', 'previews', 'renders')
WHERE status = 'retrying' AND next_attempt_at <= :now
RETURNING job_id

-- name: next_due
SELECT min(next_attempt_at) FROM processing_jobs WHERE status = 'retrying'

-- name: interrupted
-- At start: what was running when the service ended.
SELECT * FROM processing_jobs WHERE status = 'processing' AND deleted_at IS NULL

-- name: replay
UPDATE processing_jobs
SET status = 'pending', queue = iif(preview = 'wanted', 'previews', 'renders')
WHERE job_id = :job_id AND run = :run AND status = 'processing' AND queue IS NULL

-- name: replay_waiting
-- At start: what was processing and waiting for its render.
UPDATE processing_jobs SET status = 'pending' WHERE status = 'processing' AND queue IS NOT NULL

-- name: clamp_retries
-- At start: a clock that was set back must not postpone a retry for years.
UPDATE processing_jobs SET next_attempt_at = :latest WHERE status = 'retrying' AND next_attempt_at > :latest

-- name: leftovers
-- Rows that name a file they no longer need.
SELECT * FROM processing_jobs
WHERE ((status = 'completed' AND staging_path IS NOT NULL)
    OR (status = 'failed' AND (processed_paths <> '{}' OR (retryable = 0 AND staging_path IS NOT NULL)))
    OR (deleted_at IS NOT NULL AND (staging_path IS NOT NULL OR processed_paths <> '{}')))
  AND job_id > :after
ORDER BY job_id LIMIT :limit

-- name: source_removed
UPDATE processing_jobs SET staging_path = NULL
WHERE job_id = :job_id AND (status = 'completed' OR (status = 'failed' AND retryable = 0) OR deleted_at IS NOT NULL)

-- name: variants_removed
UPDATE processing_jobs SET processed_paths = '{}'
WHERE job_id = :job_id AND (status = 'failed' OR deleted_at IS NOT NULL)

-- name: expired_sources
-- Failed jobs whose source has been kept long enough.
SELECT * FROM processing_jobs
WHERE status = 'failed' AND failed_at < :before AND staging_path IS NOT NULL LIMIT :limit

-- name: expire_source
UPDATE processing_jobs SET staging_path = NULL, retryable = 0
WHERE job_id = :job_id AND status = 'failed' AND failed_at < :before

-- name: staged
SELECT 1 FROM processing_jobs WHERE job_id = :job_id AND staging_path IS NOT NULL

-- name: job
SELECT * FROM processing_jobs WHERE job_id = :job_id AND deleted_at IS NULL

-- name: job_of_image
SELECT * FROM processing_jobs WHERE image_id = :image_id AND deleted_at IS NULL

-- name: touch
-- A real write for the health check, which leaves nothing: see `untouch`.
INSERT INTO image_upload_events (event_type, created_at) VALUES ('health', :now)

-- name: untouch
DELETE FROM image_upload_events WHERE id = last_insert_rowid() AND event_type = 'health'
