-- All SQL of the job path. Each statement follows its `-- name:`; `:names` are parameters, {names} other statements.
-- Every UPDATE that ends or moves a run says `run = :run AND deleted_at IS NULL`: a superseded run changes nothing.

-- name: lowest_turn
-- The turn of the first job that waits; if none waits, the last turn that was given.
SELECT coalesce(
  (SELECT min(turn) FROM (
    SELECT min(turn) AS turn FROM processing_jobs WHERE queue = 'previews'
    UNION ALL
    SELECT min(turn) FROM processing_jobs WHERE queue = 'renders')),
  (SELECT max(turn) FROM processing_jobs),
  0)

-- name: insert_job
-- Start-time fair queueing: a new job gets the lowest waiting turn, or the turn after its user's last job, whichever is higher.
INSERT INTO processing_jobs (
  job_id, image_id, status, storage_bucket, staging_path, max_retries, created_at, user_id, org_id,
  original_filename, folded_name, expires_at, ticket_id, source_key, client_metadata, trace_id, mime_type, content_length, sha256, pixels, preview_bytes,
  render_bytes, storage_backend, recipe, idempotency_key, idempotency_digest, preview, queue, turn)
SELECT
  :job_id, :image_id, 'pending', :storage_bucket, :staging_path, :max_retries, :created_at, :user_id, :org_id,
  :original_filename, :folded_name, :expires_at, :ticket_id, :source_key, :client_metadata, :trace_id, :mime_type, :content_length, :sha256, :pixels, :preview_bytes,
  :render_bytes, :storage_backend, :recipe, :idempotency_key, :idempotency_digest, :preview, iif(:preview = 'wanted', 'previews', 'renders'),
  max(
    ({lowest_turn}),
    1 + coalesce((SELECT max(turn) FROM processing_jobs WHERE org_id = :org_id AND user_id = :user_id), 0))
RETURNING *

-- name: insert_event
INSERT INTO image_upload_events (event_type, image_id, job_id, metadata, created_at)
VALUES (:event_type, :image_id, :job_id, :metadata, :created_at)

-- name: next_waiting
-- Here and in next_preview without the jobs that have a twin: those need no lane.
SELECT * FROM processing_jobs WHERE queue = :queue
  AND NOT EXISTS (SELECT 1 FROM job_sources AS source WHERE source.job_id = processing_jobs.job_id AND twin IS NOT NULL)
ORDER BY turn, created_at LIMIT 1

-- name: next_with_twin
SELECT job.*, source.twin AS twin FROM job_sources AS source JOIN processing_jobs AS job ON job.job_id = source.job_id
WHERE source.twin IS NOT NULL AND job.queue IS NOT NULL ORDER BY source.turn LIMIT 1

-- name: any_with_twin
SELECT 1 FROM job_sources WHERE twin IS NOT NULL AND job_id != :beside LIMIT 1

-- name: insert_source
-- With the latest completed job of the same source as its twin, if that is in the same backend.
INSERT INTO job_sources (job_id, source, turn, twin)
SELECT job_id, :source, turn, (
  SELECT iif(twin.storage_backend = :backend, twin.job_id, NULL)
  FROM job_sources AS other JOIN processing_jobs AS twin ON twin.job_id = other.job_id
  WHERE other.source = :source AND other.completed = 1 ORDER BY other.rowid DESC LIMIT 1)
FROM processing_jobs WHERE job_id = :job_id
RETURNING twin

-- name: source_completed
UPDATE job_sources SET completed = 1, twin = NULL WHERE job_id = :job_id RETURNING source

-- name: set_twins
-- The jobs that wait with this source have a twin now.
UPDATE job_sources SET twin = :job_id WHERE source = :source AND completed = 0 AND twin IS NULL

-- name: drop_twin
UPDATE job_sources SET twin = NULL WHERE job_id = :job_id

-- name: drop_twins
UPDATE job_sources SET twin = NULL WHERE twin IS NOT NULL

-- name: drop_source
DELETE FROM job_sources WHERE job_id = :job_id

-- name: next_preview
-- Among the first jobs of the lowest turn, an expensive preview lets cheap ones pass that were accepted soon after it: within two
-- seconds for each megabyte of its estimate, so that a stream of cheap ones can't delay it forever.
SELECT * FROM processing_jobs WHERE job_id = (
  SELECT job_id FROM (
    SELECT job_id, turn, created_at, preview_bytes FROM processing_jobs
    WHERE queue = 'previews'
      AND NOT EXISTS (SELECT 1 FROM job_sources AS source WHERE source.job_id = processing_jobs.job_id AND twin IS NOT NULL)
    ORDER BY turn, created_at LIMIT 50)
  ORDER BY turn, julianday(created_at) * 86400 + 2.0 * preview_bytes / 1048576, created_at LIMIT 1)

-- name: claim
UPDATE processing_jobs
SET status = 'processing', queue = NULL, run = run + 1, starts = starts + 1, started_at = coalesce(started_at, :now)
WHERE job_id = :job_id AND queue = :queue
RETURNING *

-- name: claim_again
-- After its preview: the job is being processed already. SQLite writes each index anew whose columns are set, even to what they
-- were, and the status is in nine.
UPDATE processing_jobs SET queue = NULL, run = run + 1, starts = starts + 1
WHERE job_id = :job_id AND queue = :queue AND status = 'processing'
RETURNING *

-- name: requeue
-- The service is stopping, or another machine has lost the task: undo the claim, as if the run had never happened.
UPDATE processing_jobs
SET status = 'pending', starts = max(0, starts - :undone), queue = iif(preview = 'wanted', 'previews', 'renders')
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: end_preview
-- However the preview ended, the job moves on to the render queue.
UPDATE processing_jobs
SET queue = 'renders', starts = 0, preview = :preview,
    attempt_count = attempt_count + :death, deaths = deaths + :death, processed_paths = :processed_paths,
    processing_metadata = :processing_metadata
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: complete
UPDATE processing_jobs
SET status = 'completed', completed_at = :now, starts = 0, last_error = NULL, error_code = NULL, retryable = NULL,
    preview = iif(preview = 'wanted', 'none', preview), source_bytes = :source_bytes, source_sha256 = :source_sha256,
    processed_paths = :processed_paths, processing_metadata = :processing_metadata
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: ended_by
-- Whether this run brought the row to :status; used when the confirmation of its change was lost.
SELECT 1 FROM processing_jobs WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = :status

-- name: again_later
UPDATE processing_jobs
SET status = 'retrying', starts = 0, attempt_count = attempt_count + 1, deaths = deaths + :death,
    last_error = :message, error_code = :code, retryable = 1, next_attempt_at = :next_attempt_at
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: fail
-- Lists the paths of everything that may have been stored, so that housekeeping removes it.
UPDATE processing_jobs
SET status = 'failed', failed_at = :now, starts = 0, queue = NULL, next_attempt_at = NULL,
    attempt_count = attempt_count + :attempt, deaths = deaths + :death,
    last_error = :message, error_code = :code, retryable = :retryable,
    preview = iif(preview = 'none', 'none', 'wanted'), processed_paths = :processed_paths
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'processing'

-- name: retry
-- The operator restarts a failed job, behind its user's other jobs, once only its source is left.
UPDATE processing_jobs
SET status = 'pending', run = run + 1, attempt_count = 0, deaths = 0, starts = 0, last_error = NULL, error_code = NULL,
    retryable = NULL, failed_at = NULL, started_at = NULL, retried_at = :now, processing_metadata = '{}',
    queue = iif(preview = 'wanted', 'previews', 'renders'),
    turn = max(
      ({lowest_turn}),
      1 + coalesce(
        (SELECT max(turn) FROM processing_jobs AS other
         WHERE other.org_id = processing_jobs.org_id AND other.user_id = processing_jobs.user_id), 0))
WHERE job_id = :job_id AND status = 'failed' AND retryable = 1 AND deleted_at IS NULL
  AND staging_path IS NOT NULL AND processed_paths = '{}'
RETURNING *

-- name: release_due
-- A job that took too long goes behind all waiting jobs, and behind its user's other jobs.
UPDATE processing_jobs
SET status = 'pending', next_attempt_at = NULL, queue = iif(preview = 'wanted', 'previews', 'renders'),
    turn = iif(error_code IS NOT 'timeout', turn, 1 + max(
      coalesce((SELECT max(turn) FROM processing_jobs WHERE queue = 'previews'), 0),
      coalesce((SELECT max(turn) FROM processing_jobs WHERE queue = 'renders'), 0),
      coalesce(
        (SELECT max(turn) FROM processing_jobs AS other
         WHERE other.org_id = processing_jobs.org_id AND other.user_id = processing_jobs.user_id), turn)))
WHERE status = 'retrying' AND next_attempt_at <= :now
RETURNING job_id

-- name: next_due
SELECT min(due) FROM (
  SELECT min(next_attempt_at) AS due FROM processing_jobs WHERE status = 'retrying'
  UNION ALL
  SELECT min(next_attempt_at) FROM renders WHERE next_attempt_at IS NOT NULL)

-- name: interrupted
-- At start: what was running when the service ended.
SELECT * FROM processing_jobs WHERE status = 'processing' AND deleted_at IS NULL

-- name: under_way
-- A page of the `processing` jobs, in a run or waiting for their render.
SELECT job_id, run, queue FROM processing_jobs
WHERE status = 'processing' AND job_id > :after ORDER BY job_id LIMIT :limit

-- name: lost
SELECT * FROM processing_jobs
WHERE job_id = :job_id AND run = :run AND status = 'processing' AND queue IS NULL AND deleted_at IS NULL

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
-- Rows that still name a file they no longer need, from one job ID to another. The first condition is that of the index.
-- An upload that a further format is made from is kept for it, until :source_kept.
SELECT * FROM processing_jobs
WHERE ((status = 'completed' AND staging_path IS NOT NULL)
    OR (status = 'failed' AND (processed_paths <> '{}' OR (retryable = 0 AND staging_path IS NOT NULL)))
    OR (deleted_at IS NOT NULL AND (staging_path IS NOT NULL OR processed_paths <> '{}')))
  AND NOT (status = 'completed' AND deleted_at IS NULL AND completed_at > :source_kept AND EXISTS (
    SELECT 1 FROM renders WHERE renders.job_id = processing_jobs.job_id AND source = 'staged' AND state <> 'failed'))
  AND job_id BETWEEN :first AND :last
ORDER BY job_id LIMIT :limit

-- name: source_removed
UPDATE processing_jobs SET staging_path = NULL
WHERE job_id = :job_id AND (status = 'completed' OR (status = 'failed' AND retryable = 0) OR deleted_at IS NOT NULL)

-- name: variants_removed
UPDATE processing_jobs SET processed_paths = '{}', also_in = NULL
WHERE job_id = :job_id AND (status = 'failed' OR deleted_at IS NOT NULL)

-- name: list_again
-- Files that were stored after the deleted job's files had been removed.
UPDATE processing_jobs
SET processed_paths = json_patch(processed_paths, :processed_paths), also_in = coalesce(:also_in, also_in)
WHERE job_id = :job_id AND deleted_at IS NOT NULL

-- name: copying
-- Records that copies of the variants may exist in a second backend.
UPDATE processing_jobs SET also_in = :backend
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'completed' AND storage_backend = :before

-- name: move
-- The variants of a completed job are now in another backend; the old copies still exist.
UPDATE processing_jobs SET storage_backend = :backend, also_in = :before
WHERE job_id = :job_id AND run = :run AND deleted_at IS NULL AND status = 'completed' AND storage_backend = :before

-- name: copies_removed
-- The copies in the second backend are gone.
UPDATE processing_jobs SET also_in = NULL WHERE job_id = :job_id AND also_in = :backend AND storage_backend <> :backend

-- name: jobs_between
-- A page of all jobs in order of acceptance: a bounded amount of work.
SELECT * FROM processing_jobs WHERE rowid > :after AND rowid <= :upto AND deleted_at IS NULL

-- name: owners
-- The jobs of these images, deleted ones too, and the further files that may be theirs: [[backend, key]]. One statement
-- reads one state: a key that moves from a list to another is in one of them.
SELECT *, (
  SELECT json_group_array(json_array(backend, key)) FROM (
    SELECT backend, key FROM retired_keys WHERE retired_keys.job_id = job.job_id AND remove_at IS NOT NULL
    UNION ALL
    SELECT backend, named.value FROM renders, json_each(keys) AS named WHERE renders.job_id = job.job_id)) AS further
FROM processing_jobs AS job WHERE image_id IN (SELECT value FROM json_each(:image_ids))

-- name: expired_sources
-- Failed jobs whose source has been kept long enough.
SELECT * FROM processing_jobs
WHERE status = 'failed' AND failed_at < :before AND staging_path IS NOT NULL AND job_id > :after
ORDER BY job_id LIMIT :limit

-- name: expire_source
UPDATE processing_jobs SET staging_path = NULL, retryable = 0
WHERE job_id = :job_id AND status = 'failed' AND failed_at < :before

-- name: wanting_source
-- Which of these jobs have a row, and whether it still names the staged file.
SELECT job_id, staging_path IS NOT NULL AS wanted FROM processing_jobs
WHERE job_id IN (SELECT value FROM json_each(:job_ids))

-- name: job
SELECT * FROM processing_jobs WHERE job_id = :job_id AND deleted_at IS NULL

-- name: job_of_image
SELECT * FROM processing_jobs WHERE image_id = :image_id AND deleted_at IS NULL

-- name: watch_waiting_inserted
-- On the writer's connection: whichever statement lets a job wait, its queue counts as one that may have a job.
CREATE TEMP TRIGGER waiting_inserted AFTER INSERT ON main.processing_jobs WHEN NEW.queue IS NOT NULL
BEGIN
  SELECT job_waits(NEW.queue);
END

-- name: watch_waiting_updated
CREATE TEMP TRIGGER waiting_updated AFTER UPDATE OF queue ON main.processing_jobs WHEN NEW.queue IS NOT NULL
BEGIN
  SELECT job_waits(NEW.queue);
END

-- name: watch_twin_updated
-- A job without its twin is to be rendered.
CREATE TEMP TRIGGER twin_updated AFTER UPDATE OF twin ON main.job_sources WHEN OLD.twin IS NOT NULL AND NEW.twin IS NULL
BEGIN
  SELECT job_waits('previews'), job_waits('renders');
END

-- name: watch_twin_deleted
CREATE TEMP TRIGGER twin_deleted AFTER DELETE ON main.job_sources WHEN OLD.twin IS NOT NULL
BEGIN
  SELECT job_waits('previews'), job_waits('renders');
END

-- name: watch_window_inserted
-- On the writer's connection: what the memory of admissions has of a user is that of the row.
CREATE TEMP TRIGGER window_inserted AFTER INSERT ON main.upload_rate_limits
BEGIN
  SELECT window_changed(NEW.org_id, NEW.user_id, NEW.window_start, NEW.upload_count);
END

-- name: watch_window_updated
CREATE TEMP TRIGGER window_updated AFTER UPDATE ON main.upload_rate_limits
BEGIN
  SELECT window_changed(OLD.org_id, OLD.user_id, NULL, NULL) WHERE (OLD.org_id, OLD.user_id) <> (NEW.org_id, NEW.user_id);
  SELECT window_changed(NEW.org_id, NEW.user_id, NEW.window_start, NEW.upload_count);
END

-- name: watch_window_deleted
CREATE TEMP TRIGGER window_deleted AFTER DELETE ON main.upload_rate_limits
BEGIN
  SELECT window_changed(OLD.org_id, OLD.user_id, NULL, NULL);
END

-- name: watch_completed_updated
-- On the writer's connection: whichever statement changes a completed row, the memory of rows forgets it.
CREATE TEMP TRIGGER completed_updated AFTER UPDATE ON main.processing_jobs
WHEN OLD.status = 'completed' AND OLD.deleted_at IS NULL
BEGIN
  SELECT completed_row_changed(OLD.job_id, OLD.image_id);
END

-- name: watch_completed_deleted
CREATE TEMP TRIGGER completed_deleted AFTER DELETE ON main.processing_jobs
WHEN OLD.status = 'completed' AND OLD.deleted_at IS NULL
BEGIN
  SELECT completed_row_changed(OLD.job_id, OLD.image_id);
END

-- name: instance
SELECT id, storage_marked FROM service_instance

-- name: set_instance
INSERT INTO service_instance (one, id) VALUES (1, :id)
ON CONFLICT (one) DO UPDATE SET id = excluded.id, storage_marked = 0

-- name: mark_storage
-- A local storage folder has received the ID: from now on a folder without it is not ours.
UPDATE service_instance SET storage_marked = 1

-- name: key_of_digest
SELECT * FROM api_keys WHERE digest = :digest AND revoked_at IS NULL

-- name: key_holds
SELECT 1 FROM api_keys WHERE key_id = :key_id AND revoked_at IS NULL

-- name: use_key
UPDATE api_keys SET last_used_at = :now WHERE key_id = :key_id

-- name: insert_key
INSERT INTO api_keys (key_id, digest, name, org_id, user_id, permissions, narrower, created_at)
VALUES (:key_id, :digest, :name, :org_id, :user_id, :permissions, :narrower, :created_at)

-- name: keys
SELECT * FROM api_keys ORDER BY created_at DESC

-- name: revoke_key
UPDATE api_keys SET revoked_at = :now WHERE key_id = :key_id AND revoked_at IS NULL

-- name: key_of_id
SELECT digest FROM api_keys WHERE key_id = :key_id AND revoked_at IS NULL

-- name: count_keys
SELECT count(*) FROM api_keys WHERE revoked_at IS NULL

-- name: revoked_digests
SELECT digest FROM api_keys WHERE revoked_at IS NOT NULL

-- name: revoke_digest
UPDATE api_keys SET revoked_at = :now WHERE digest = :digest AND revoked_at IS NULL RETURNING key_id

-- name: insert_ticket
INSERT INTO upload_tickets (
  ticket_id, digest, org_id, user_id, key_id, bucket, narrower, metadata, expires_after, uploads_left, created_at, expires_at)
VALUES (
  :ticket_id, :digest, :org_id, :user_id, :key_id, :bucket, :narrower, :metadata, :expires_after, :uploads_left,
  :created_at, :expires_at)

-- name: ticket_of_digest
SELECT * FROM upload_tickets AS ticket
WHERE digest = :digest AND NOT EXISTS (
  SELECT 1 FROM api_keys AS key WHERE key.key_id = ticket.key_id AND key.revoked_at IS NOT NULL)

-- name: spend_ticket
UPDATE upload_tickets SET uploads_left = uploads_left - 1 WHERE ticket_id = :ticket_id AND uploads_left > 0

-- name: open_tickets
SELECT * FROM upload_tickets WHERE expires_at > :now AND uploads_left > 0 ORDER BY expires_at LIMIT :limit

-- name: drop_tickets
DELETE FROM upload_tickets WHERE expires_at < :before

-- name: clocks
SELECT clock_wall, clock_boot, clock_boot_id, clock_doubted FROM service_instance

-- name: store_clocks
UPDATE service_instance
SET clock_wall = :wall, clock_boot = :boot, clock_boot_id = :boot_id, clock_doubted = :doubted

-- name: any_job
SELECT 1 FROM processing_jobs LIMIT 1

-- name: any_local
-- Used before the storage folder has the ID, so once in a database's life.
SELECT 1 FROM processing_jobs
WHERE storage_backend = 'local' AND status = 'completed' AND deleted_at IS NULL LIMIT 1

-- name: touch
-- A real write for the health check, undone by `untouch`.
INSERT INTO image_upload_events (event_type, created_at) VALUES ('health', :now)

-- name: untouch
DELETE FROM image_upload_events WHERE id = last_insert_rowid() AND event_type = 'health'

-- name: rate_window
SELECT window_start, upload_count FROM upload_rate_limits WHERE org_id = :org_id AND user_id = :user_id

-- name: set_rate_window
INSERT INTO upload_rate_limits (org_id, user_id, window_start, upload_count)
VALUES (:org_id, :user_id, :window_start, :upload_count)
ON CONFLICT (org_id, user_id) DO UPDATE SET window_start = excluded.window_start, upload_count = excluded.upload_count

-- name: drop_rate_windows
-- Windows that have ended.
DELETE FROM upload_rate_limits WHERE window_start < :before

-- name: of_key
SELECT * FROM processing_jobs WHERE org_id = :org_id AND user_id = :user_id AND idempotency_key = :key

-- name: free_key
-- The key has expired: a new upload may use it.
UPDATE processing_jobs SET idempotency_key = NULL, idempotency_digest = NULL WHERE job_id = :job_id

-- name: delete
-- One transaction deletes the image: its run is fenced, it can't be claimed, its personal fields are cleared, and the files
-- that it may have are listed for removal.
UPDATE processing_jobs
SET deleted_at = :now, run = run + 1, queue = NULL, next_attempt_at = NULL, processed_paths = :processed_paths,
    user_id = NULL, org_id = NULL, original_filename = NULL, folded_name = NULL, client_metadata = '{}', processing_metadata = '{}',
    source_bytes = NULL, source_sha256 = NULL,
    idempotency_key = NULL, idempotency_digest = NULL, ticket_id = NULL
WHERE job_id = :job_id AND deleted_at IS NULL

-- name: patch
-- What an image's owner may change later. The run is not raised: no run works on a completed job.
UPDATE processing_jobs SET client_metadata = :client_metadata, expires_at = :expires_at
WHERE job_id = :job_id AND status = 'completed' AND deleted_at IS NULL
RETURNING *

-- name: source_sums
SELECT images, bytes FROM source_sums

-- name: kept_sources
SELECT * FROM processing_jobs INDEXED BY sources_kept WHERE source_sha256 IS NOT NULL LIMIT :limit

-- name: drop_kept_source
-- `run` is raised, so that a move which copies the source meets its fence.
UPDATE processing_jobs SET source_key = NULL, source_bytes = NULL, source_sha256 = NULL, run = run + 1
WHERE job_id = :job_id AND source_sha256 IS NOT NULL

-- name: expired_images
SELECT * FROM processing_jobs
WHERE expires_at IS NOT NULL AND expires_at <= :now AND deleted_at IS NULL ORDER BY expires_at LIMIT :limit

-- name: images
SELECT * FROM processing_jobs
WHERE image_id IN (SELECT value FROM json_each(:image_ids)) AND deleted_at IS NULL

-- name: count_by_status
-- For `adopt`, which only reads: works on a database of any version, which may have no sums.
SELECT status, count(*) AS jobs FROM processing_jobs WHERE deleted_at IS NULL GROUP BY status

-- name: sums
SELECT name, total FROM job_sums WHERE kind = :kind

-- name: minutes
SELECT minute, completed, failed, processing_seconds, ready_seconds FROM job_minutes
WHERE minute >= :since ORDER BY minute

-- name: latest_failed
-- Without INDEXED BY, SQLite would collect all failed jobs by another index and sort them.
SELECT * FROM processing_jobs INDEXED BY jobs_recent_failed
WHERE status = 'failed' AND deleted_at IS NULL ORDER BY failed_at DESC LIMIT :limit

-- name: any_waiting
SELECT 1 FROM processing_jobs WHERE queue IS NOT NULL LIMIT 1

-- name: admission
-- What an upload is let in by: one row, with NULLs for a user without a window.
SELECT (SELECT count(*) FROM processing_jobs WHERE queue IS NOT NULL) AS jobs, window_start, upload_count
FROM (SELECT 1) LEFT JOIN upload_rate_limits ON org_id = :org_id AND user_id = :user_id

-- name: waiting_by_lane
-- Reads at most :most entries of each index and no rows, however many jobs there are.
SELECT 'previews' AS lane, count(*) AS jobs, min(began_at) AS oldest
FROM (SELECT coalesce(retried_at, created_at) AS began_at FROM processing_jobs WHERE queue = 'previews' ORDER BY turn, created_at LIMIT :most)
UNION ALL
SELECT 'renders', count(*), min(began_at)
FROM (SELECT coalesce(retried_at, created_at) AS began_at FROM processing_jobs WHERE queue = 'renders' ORDER BY turn, created_at LIMIT :most)
UNION ALL
SELECT 'retrying', count(*), NULL
FROM (SELECT 1 FROM processing_jobs WHERE status = 'retrying' AND next_attempt_at IS NOT NULL LIMIT :most)

-- name: last_row
SELECT coalesce(max(rowid), 0) FROM processing_jobs

-- name: counting
SELECT bytes_upto, minutes_from, names_upto, usage_upto FROM job_counting

-- name: usage_from
SELECT org_id, user_id, images, bytes FROM usage
WHERE user_id <> '' AND (org_id, user_id) >= (:org_id, :user_id) ORDER BY org_id, user_id LIMIT :limit

-- name: used
-- Of a user, and of the organisation, whose user is empty.
SELECT user_id, images, bytes, reserved FROM usage WHERE org_id = :org_id AND user_id IN (:user_id, '')

-- name: count_users
INSERT INTO usage (org_id, user_id, images, bytes, reserved)
SELECT org_id, user_id, sum(images), sum(bytes), sum(reserved) FROM job_usage
WHERE row > :after AND row <= :upto GROUP BY org_id, user_id
ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes,
  reserved = reserved + excluded.reserved

-- name: count_orgs
INSERT INTO usage (org_id, user_id, images, bytes, reserved)
SELECT org_id, '', sum(images), sum(bytes), sum(reserved) FROM job_usage
WHERE row > :after AND row <= :upto GROUP BY org_id
ON CONFLICT DO UPDATE SET images = images + excluded.images, bytes = bytes + excluded.bytes,
  reserved = reserved + excluded.reserved

-- name: users_counted
UPDATE job_counting SET usage_upto = :upto

-- name: names_between
SELECT rowid AS row, original_filename FROM processing_jobs
WHERE rowid > :after AND rowid <= :upto AND original_filename IS NOT NULL

-- name: fold_name
UPDATE processing_jobs SET folded_name = :name WHERE rowid = :row AND deleted_at IS NULL

-- name: names_folded
UPDATE job_counting SET names_upto = :upto

-- name: count_bytes
INSERT INTO job_sums (kind, name, total)
SELECT 'bytes', name, sum(bytes) FROM job_bytes WHERE row > :after AND row <= :upto GROUP BY name
ON CONFLICT DO UPDATE SET total = total + excluded.total

-- name: bytes_counted
UPDATE job_counting SET bytes_upto = :upto

-- name: ended_between
SELECT substr(ended_at, 1, 16) AS minute, sum(ok) AS completed, sum(1 - ok) AS failed,
  total(iif(ok, julianday(ended_at) - julianday(coalesce(started_at, began_at)), 0)) * 86400 AS processing_seconds,
  total(iif(ok, julianday(ended_at) - julianday(began_at), 0)) * 86400 AS ready_seconds
FROM (
  SELECT 1 AS ok, completed_at AS ended_at, started_at, coalesce(retried_at, created_at) AS began_at FROM processing_jobs
  WHERE status = 'completed' AND completed_at >= :since AND completed_at < :before
  UNION ALL
  SELECT 0, failed_at, NULL, NULL FROM processing_jobs
  WHERE status = 'failed' AND failed_at >= :since AND failed_at < :before)
GROUP BY 1

-- name: add_minute
INSERT INTO job_minutes (minute, completed, failed, processing_seconds, ready_seconds)
VALUES (:minute, :completed, :failed, :processing_seconds, :ready_seconds)
ON CONFLICT DO UPDATE SET completed = completed + excluded.completed, failed = failed + excluded.failed,
  processing_seconds = processing_seconds + excluded.processing_seconds,
  ready_seconds = ready_seconds + excluded.ready_seconds

-- name: minutes_counted
UPDATE job_counting SET minutes_from = :since

-- name: drop_deleted
-- Deleted jobs whose files are confirmed gone. A failed job keeps its row: the holder of its receipt may still request it.
-- The latest row stays: a table without rows beside our files means that the database was lost (see jobs/instance).
-- Pages by rowid: the task is not urgent, and an index for it would make an old database's first start read all rows.
DELETE FROM processing_jobs
WHERE rowid > :after AND rowid <= :upto AND deleted_at < :before AND rowid < (SELECT max(rowid) FROM processing_jobs)
  AND staging_path IS NULL AND processed_paths = '{}' AND also_in IS NULL
  AND NOT EXISTS (SELECT 1 FROM retired_keys WHERE retired_keys.job_id = processing_jobs.job_id)

-- name: drop_events
DELETE FROM image_upload_events WHERE id IN (
  SELECT id FROM image_upload_events WHERE created_at < :before ORDER BY created_at LIMIT :limit)

-- name: recent_jobs
SELECT * FROM processing_jobs WHERE deleted_at IS NULL ORDER BY created_at DESC LIMIT :limit

-- name: recent_jobs_of_status
SELECT * FROM processing_jobs WHERE deleted_at IS NULL AND status = :status ORDER BY created_at DESC LIMIT :limit

-- name: next_retries
SELECT * FROM processing_jobs WHERE status = 'retrying' AND next_attempt_at IS NOT NULL
ORDER BY next_attempt_at LIMIT :limit

-- name: events_of_job
SELECT event_type, metadata, created_at FROM image_upload_events WHERE job_id = :job_id ORDER BY id DESC LIMIT :limit

-- name: event_ids
-- Ids are assigned in order and dropped oldest first, so their span is the number of events, without a scan.
SELECT
  (SELECT min(id) FROM image_upload_events) AS first,
  (SELECT max(id) FROM image_upload_events) AS last,
  (SELECT created_at FROM image_upload_events ORDER BY id DESC LIMIT 1) AS last_at

-- name: near_limit
SELECT user_id, org_id, upload_count, window_start FROM upload_rate_limits INDEXED BY windows_by_count
WHERE upload_count >= :threshold AND window_start > :since AND window_start <= :now
ORDER BY upload_count DESC LIMIT :limit

-- name: windows
SELECT
  (SELECT count(*) FROM upload_rate_limits WHERE window_start > :since AND window_start <= :now) AS active,
  (SELECT count(*) FROM upload_rate_limits) AS stored

-- name: operator_sessions
SELECT digest, subject, opened_at, expires_at FROM operator_sessions WHERE credentials = :credentials
ORDER BY expires_at

-- name: insert_operator_session
INSERT INTO operator_sessions (digest, credentials, subject, opened_at, expires_at)
VALUES (:digest, :credentials, :subject, :opened_at, :expires_at)

-- name: drop_operator_session
DELETE FROM operator_sessions WHERE digest = :digest

-- name: drop_operator_sessions_of_others
-- Of an earlier operator token, or from before a restore.
DELETE FROM operator_sessions WHERE credentials <> :credentials

-- name: drop_operator_sessions
DELETE FROM operator_sessions RETURNING expires_at

-- name: watch_events
-- On the writer's connection: who waits for news of a job is woken once its audit event is committed.
CREATE TEMP TRIGGER event_recorded AFTER INSERT ON main.image_upload_events WHEN NEW.job_id IS NOT NULL
BEGIN
  SELECT event_recorded(NEW.job_id);
END

-- name: webhook_configured
INSERT INTO webhook_endpoints (name, configured, events, buckets) VALUES (:name, 1, :events, :buckets)
ON CONFLICT (name) DO UPDATE SET configured = 1, events = excluded.events, buckets = excluded.buckets

-- name: webhooks_not_configured
UPDATE webhook_endpoints SET configured = 0 WHERE name NOT IN (SELECT value FROM json_each(:names))

-- name: clamp_deliveries
-- At start: a clock that was set back must not postpone an attempt for years.
UPDATE webhook_outbox SET next_attempt_at = :latest
WHERE webhook = :webhook AND state = 'waiting' AND next_attempt_at > :latest

-- name: deliveries_due
-- The next event of the same image and endpoint waits; other images do not.
SELECT * FROM webhook_outbox AS due INDEXED BY outbox_due
WHERE webhook = :webhook AND state = 'waiting' AND next_attempt_at <= :now
  AND NOT EXISTS (
    SELECT 1 FROM webhook_outbox AS earlier INDEXED BY outbox_of_image
    WHERE earlier.webhook = due.webhook AND earlier.image_id = due.image_id AND earlier.state = 'waiting' AND earlier.id < due.id)
ORDER BY next_attempt_at, id LIMIT :limit

-- name: next_delivery
SELECT min(next_attempt_at) AS at FROM webhook_outbox INDEXED BY outbox_due
WHERE webhook = :webhook AND state = 'waiting' AND next_attempt_at > :now

-- name: delivery_ended
UPDATE webhook_outbox SET state = :state, attempts = :attempts, ended_at = :now WHERE id = :id AND state = 'waiting'

-- name: delivery_again
UPDATE webhook_outbox SET attempts = :attempts, next_attempt_at = :next_attempt_at WHERE id = :id AND state = 'waiting'

-- name: delivery_attempted
-- Not of a delivery that an erasure has removed meanwhile.
INSERT INTO webhook_attempts (delivery, webhook, attempt, started_at, status, reason, milliseconds)
SELECT id, :webhook, :attempts, :started_at, :status, :reason, :milliseconds FROM webhook_outbox WHERE id = :id

-- name: switch_webhook_off
UPDATE webhook_endpoints SET switched_off_at = :now WHERE name = :webhook AND switched_off_at IS NULL

-- name: switch_webhook_on
-- What waits is due at once.
UPDATE webhook_endpoints SET switched_off_at = NULL WHERE name = :webhook AND switched_off_at IS NOT NULL

-- name: deliveries_at_once
UPDATE webhook_outbox SET next_attempt_at = :now WHERE webhook = :webhook AND state = 'waiting' AND next_attempt_at > :now

-- name: replay_deliveries
-- Those that wait already are sent in any case.
UPDATE webhook_outbox
SET state = 'waiting', attempts = 0, waiting_since = :now, next_attempt_at = :now, ended_at = NULL
WHERE id IN (
  SELECT id FROM webhook_outbox
  WHERE webhook = :webhook AND state IN (SELECT value FROM json_each(:states)) AND occurred_at >= :since
    AND (:image_id IS NULL OR image_id = :image_id)
  ORDER BY id LIMIT :limit)

-- name: hold_deliveries
-- In a restored database: what waited when the backup was made may have been delivered since.
UPDATE webhook_outbox SET state = 'held', ended_at = :now WHERE state = 'waiting'

-- name: webhook_endpoints
SELECT endpoint.*,
  (SELECT min(waiting_since) FROM webhook_outbox INDEXED BY outbox_in_order
   WHERE webhook = endpoint.name AND state = 'waiting'
     AND id = (SELECT min(id) FROM webhook_outbox INDEXED BY outbox_in_order WHERE webhook = endpoint.name AND state = 'waiting'))
    AS oldest,
  (SELECT id FROM webhook_attempts WHERE webhook = endpoint.name ORDER BY id DESC LIMIT 1) AS last_attempt
FROM webhook_endpoints AS endpoint ORDER BY name

-- name: delivery_log
SELECT attempt.*, sent.message_id, sent.event_type, sent.image_id, sent.state, sent.next_attempt_at
FROM webhook_attempts AS attempt LEFT JOIN webhook_outbox AS sent ON sent.id = attempt.delivery
WHERE attempt.webhook = :webhook ORDER BY attempt.id DESC LIMIT :limit

-- name: drop_deliveries
DELETE FROM webhook_outbox WHERE id IN (
  SELECT id FROM webhook_outbox WHERE ended_at < :before ORDER BY ended_at LIMIT :limit)

-- name: give_up_unsent
-- Of endpoints that are switched off or no longer in the settings, to which nothing is sent.
UPDATE webhook_outbox SET state = 'given_up', ended_at = :now WHERE id IN (
  SELECT sent.id FROM webhook_endpoints AS endpoint JOIN webhook_outbox AS sent INDEXED BY outbox_in_order
    ON sent.webhook = endpoint.name AND sent.state = 'waiting'
  WHERE (endpoint.configured = 0 OR endpoint.switched_off_at IS NOT NULL) AND sent.waiting_since < :before LIMIT :limit)

-- name: drop_attempts
DELETE FROM webhook_attempts WHERE id IN (
  SELECT id FROM webhook_attempts WHERE started_at < :before ORDER BY started_at LIMIT :limit)

-- name: latest_events
-- Of each job: its latest audit event, and that of its preview.
SELECT job_id, max(id) AS id, max(iif(event_type = 'preview_done', id, 0)) AS preview FROM image_upload_events
WHERE job_id IN (SELECT value FROM json_each(:job_ids)) GROUP BY job_id

-- name: error_groups
-- The failed jobs of each code, of which at most :most are counted, and when the last of them failed. Names are those of
-- the latest.
WITH grouped AS MATERIALIZED (
  SELECT code.value AS code,
    (SELECT json_array(count(*), max(failed_at)) FROM (
      SELECT failed_at FROM processing_jobs INDEXED BY jobs_by_error
      WHERE error_code = code.value AND status = 'failed' AND deleted_at IS NULL
      ORDER BY created_at DESC LIMIT :most)) AS counted,
    (SELECT json_group_array(name) FROM (
      SELECT coalesce(original_filename, job_id) AS name FROM processing_jobs INDEXED BY jobs_by_error
      WHERE error_code = code.value AND status = 'failed' AND deleted_at IS NULL
      ORDER BY created_at DESC LIMIT :names)) AS names
  FROM json_each(:codes) AS code)
SELECT code, counted ->> 0 AS jobs, counted ->> 1 AS last_failed_at, names FROM grouped
WHERE jobs > 0 ORDER BY last_failed_at DESC

-- name: store_hours
-- The whole hours that job_minutes still has, and the present one.
INSERT OR REPLACE INTO job_hours (hour, completed, failed, processing_seconds, ready_seconds)
SELECT substr(minute, 1, 13), sum(completed), sum(failed), total(processing_seconds), total(ready_seconds)
FROM job_minutes WHERE minute >= :since GROUP BY 1

-- name: store_waiting
INSERT OR REPLACE INTO queue_minutes (minute, waiting)
SELECT :minute, count(*) FROM (SELECT 1 FROM processing_jobs WHERE queue IS NOT NULL LIMIT :most)

-- name: drop_hours
-- By number, not by age alone: a clock that was wrong can neither empty the table nor let it grow.
DELETE FROM job_hours
WHERE hour NOT IN (SELECT hour FROM job_hours WHERE hour <= :latest ORDER BY hour DESC LIMIT :kept)

-- name: drop_queue_minutes
DELETE FROM queue_minutes
WHERE minute NOT IN (SELECT minute FROM queue_minutes WHERE minute <= :latest ORDER BY minute DESC LIMIT :kept)

-- name: hours
SELECT hour, completed, failed, processing_seconds, ready_seconds FROM job_hours
WHERE hour >= :since AND hour < :before ORDER BY hour

-- name: waiting_at
-- The latest that was noted between two minutes.
SELECT waiting FROM queue_minutes WHERE minute >= :since AND minute <= :until ORDER BY minute DESC LIMIT 1
