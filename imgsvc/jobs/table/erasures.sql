-- Erasing a person. Statements as in queries.sql.

-- name: insert_erasure
INSERT INTO erasures (erasure_id, org_id, user_id, salt, person, mark, step, repeated, started_at)
VALUES (:erasure_id, :org_id, :user_id, :salt, :person, :mark, 'images', :repeated, :now)
RETURNING *

-- name: insert_erasure_of_nobody
-- A repeated erasure of a person who is not in the restored database.
INSERT INTO erasures (erasure_id, salt, person, mark, step, repeated, started_at, ended_at)
VALUES (:erasure_id, :salt, :person, :mark, 'done', 1, :now, :now)

-- name: erasure_running
SELECT * FROM erasures WHERE org_id = :org_id AND user_id = :user_id AND ended_at IS NULL

-- name: erasures_since
-- Those that run, and those that began after a moment: an upload may have begun before them.
SELECT * FROM erasures WHERE number > :seen
UNION
SELECT * FROM erasures WHERE ended_at IS NULL

-- name: erasures_running
SELECT * FROM erasures WHERE ended_at IS NULL ORDER BY number

-- name: erasures
SELECT * FROM erasures ORDER BY number DESC LIMIT :limit

-- name: all_erasures
SELECT * FROM erasures ORDER BY number

-- name: erasure
SELECT * FROM erasures WHERE erasure_id = :erasure_id

-- name: last_erasure
SELECT coalesce(max(number), 0) FROM erasures

-- name: erasure_of_number
SELECT * FROM erasures WHERE number = :number

-- name: erasure_step
UPDATE erasures SET step = :step, position = :position, counts = :counts WHERE number = :number

-- name: erasure_ended
UPDATE erasures SET step = 'done', org_id = NULL, user_id = NULL, counts = :counts, ended_at = :now WHERE number = :number

-- name: jobs_of_person
SELECT * FROM processing_jobs INDEXED BY jobs_by_user
WHERE org_id = :org_id AND user_id = :user_id AND deleted_at IS NULL ORDER BY turn LIMIT :limit

-- name: erase_job
-- After its deletion: what that leaves. A client may have put a name into its trace ID.
UPDATE processing_jobs SET trace_id = :mark, sha256 = '' WHERE job_id = :job_id AND deleted_at IS NOT NULL

-- name: note_erased_job
INSERT INTO erased_jobs (number, job_id) VALUES (:number, :job_id)

-- name: erase_events_of_job
UPDATE image_upload_events SET metadata = json_replace(metadata, '$.trace_id', :mark, '$.host', :mark)
WHERE job_id = :job_id AND json_valid(metadata)

-- name: erase_deliveries
-- Of erased images. What is left tells the receivers, by ids alone, that an image is gone.
DELETE FROM webhook_outbox
WHERE image_id IN (SELECT image_id FROM processing_jobs WHERE job_id IN (SELECT value FROM json_each(:job_ids)))
  AND NOT (event_type = 'image.deleted' AND state IN ('waiting', 'held'))

-- name: erase_attempts
DELETE FROM webhook_attempts WHERE delivery IN (
  SELECT id FROM webhook_outbox
  WHERE image_id IN (SELECT image_id FROM processing_jobs WHERE job_id IN (SELECT value FROM json_each(:job_ids)))
    AND NOT (event_type = 'image.deleted' AND state IN ('waiting', 'held')))

-- name: keys_of_person
SELECT digest FROM api_keys WHERE org_id = :org_id AND user_id = :user_id

-- name: erase_keys
DELETE FROM api_keys WHERE org_id = :org_id AND user_id = :user_id

-- name: erase_tickets
DELETE FROM upload_tickets WHERE org_id = :org_id AND user_id = :user_id

-- name: erase_windows
DELETE FROM upload_rate_limits WHERE org_id = :org_id AND user_id = :user_id

-- name: erase_usage
-- Its triggers have taken the images off; a row with a remainder would name the person.
DELETE FROM usage WHERE org_id = :org_id AND user_id = :user_id

-- name: last_event
SELECT coalesce(max(id), 0) FROM image_upload_events

-- name: erase_events
-- A page of the audit trail: names are replaced, and so is what a client may have named after the person.
UPDATE image_upload_events
SET metadata = json_replace(
  metadata, '$.org_id', :mark, '$.user_id', :mark, '$.trace_id', :mark, '$.bucket', :mark)
WHERE id > :after AND id <= :upto AND json_valid(metadata)
  AND json_extract(metadata, '$.org_id') = :org_id AND json_extract(metadata, '$.user_id') = :user_id

-- name: erased_jobs_with_files
-- A page of the deleted images whose files are not known to be gone yet.
SELECT job.* FROM erased_jobs AS erased JOIN processing_jobs AS job ON job.job_id = erased.job_id
WHERE erased.number = :number AND erased.job_id > :after AND (
  job.staging_path IS NOT NULL OR job.processed_paths <> '{}' OR job.also_in IS NOT NULL
  OR EXISTS (SELECT 1 FROM retired_keys WHERE retired_keys.job_id = job.job_id AND remove_at IS NOT NULL))
ORDER BY erased.job_id LIMIT :limit

-- name: clear_erased_jobs
-- Their files are gone: buckets may be named after people.
UPDATE processing_jobs SET storage_bucket = :mark
WHERE job_id IN (SELECT job_id FROM erased_jobs WHERE number = :number) AND deleted_at IS NOT NULL

-- name: clear_retired_keys
DELETE FROM retired_keys WHERE remove_at IS NULL
  AND job_id IN (SELECT job_id FROM erased_jobs WHERE number = :number)

-- name: drop_erased_jobs
DELETE FROM erased_jobs WHERE number = :number

-- name: people_after
-- The next person, by an index, of whom there are images.
SELECT org_id, user_id FROM processing_jobs INDEXED BY jobs_by_user
WHERE (org_id, user_id) > (:org_id, :user_id) AND user_id IS NOT NULL ORDER BY org_id, user_id LIMIT 1

-- name: people_elsewhere
SELECT org_id, user_id FROM api_keys
UNION SELECT org_id, user_id FROM upload_tickets
UNION SELECT org_id, user_id FROM upload_rate_limits
UNION SELECT json_extract(metadata, '$.org_id'), json_extract(metadata, '$.user_id') FROM image_upload_events
  WHERE json_valid(metadata) AND json_extract(metadata, '$.user_id') IS NOT NULL
