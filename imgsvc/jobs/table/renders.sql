-- What is made of completed images later, and the files that this replaces. Statements as in queries.sql.
-- Every UPDATE that ends or moves a run says `generation = :generation AND state = 'running'`.

-- name: insert_render
INSERT INTO renders (job_id, image_id, kind, recipe, keys, source, backend, state, priority, render_bytes, created_at, task_id)
VALUES (:job_id, :image_id, :kind, :recipe, :keys, :source, :backend, 'waiting', :priority, :render_bytes, :created_at, :task_id)
RETURNING *

-- name: raise_revision
-- In the same transaction as the row that names keys with this number: none is ever used twice.
UPDATE processing_jobs SET revision = revision + 1
WHERE job_id = :job_id AND status = 'completed' AND deleted_at IS NULL
RETURNING *

-- name: set_focal
-- Of an image without crops: nothing has to be made.
UPDATE processing_jobs
SET recipe = iif(:focal IS NULL, json_remove(recipe, '$.focal'), json_set(recipe, '$.focal', json(:focal)))
WHERE job_id = :job_id AND status = 'completed' AND deleted_at IS NULL

-- name: waiting_focal
SELECT * FROM renders WHERE job_id = :job_id AND kind = 'focal' AND state <> 'failed' ORDER BY render_id DESC LIMIT 1

-- name: renders_of
SELECT * FROM renders WHERE job_id = :job_id ORDER BY render_id

-- name: drop_render
DELETE FROM renders WHERE render_id = :render_id

-- name: next_render
-- Uploads always go first: nothing is claimed here while one waits for its preview or its first render. Of an image one
-- runs at a time, so that each sees what the one before has made. What a task ordered waits while a backup is :held.
SELECT * FROM renders
WHERE state = 'waiting' AND next_attempt_at IS NULL
  AND NOT EXISTS (SELECT 1 FROM processing_jobs WHERE queue IS NOT NULL)
  AND NOT EXISTS (SELECT 1 FROM renders AS other WHERE other.job_id = renders.job_id AND other.state = 'running'
    AND other.kind <> 'format' AND renders.kind <> 'format')
  AND NOT (:held AND kind = 'again')
ORDER BY priority, render_id LIMIT 1

-- name: any_render_waiting
SELECT 1 FROM renders WHERE state = 'waiting' AND next_attempt_at IS NULL LIMIT 1

-- name: claim_render
UPDATE renders SET state = 'running', generation = generation + 1, starts = starts + 1, backend = :backend
WHERE render_id = :render_id AND state = 'waiting'
RETURNING *

-- name: current_render
SELECT * FROM renders WHERE render_id = :render_id AND generation = :generation AND state = 'running'

-- name: record_render
-- The fence of a moved image is its backend: the files were put where it was at the claim. `run` is raised, so that a
-- move which copies the replaced files meets its own fence.
UPDATE processing_jobs
SET processed_paths = :processed_paths, processing_metadata = :processing_metadata, recipe = :recipe, run = run + 1
WHERE job_id = :job_id AND status = 'completed' AND deleted_at IS NULL AND storage_backend = :backend

-- name: requeue_render
-- The service is stopping: undo the claim, but for the generation.
UPDATE renders SET state = 'waiting', starts = max(0, starts - 1)
WHERE render_id = :render_id AND generation = :generation AND state = 'running'

-- name: render_again
UPDATE renders
SET state = 'waiting', starts = 0, attempts = attempts + 1, deaths = deaths + :death, error_code = :code,
    error = :message, next_attempt_at = :next_attempt_at
WHERE render_id = :render_id AND generation = :generation AND state = 'running'

-- name: fail_render
UPDATE renders
SET state = 'failed', attempts = attempts + 1, deaths = deaths + :death, error_code = :code, error = :message
WHERE render_id = :render_id AND generation = :generation AND state = 'running'

-- name: interrupted_renders
-- At start: what was running when the service ended.
SELECT * FROM renders WHERE state = 'running'

-- name: replay_render
UPDATE renders SET state = 'waiting' WHERE render_id = :render_id AND state = 'running'

-- name: release_all_renders
-- At start, so that a clock that was set back postpones nothing.
UPDATE renders SET next_attempt_at = NULL WHERE next_attempt_at IS NOT NULL

-- name: release_due_renders
UPDATE renders SET next_attempt_at = NULL WHERE next_attempt_at <= :now

-- name: wanting_staged
-- Whether a row is still to be made from the upload itself.
SELECT 1 FROM renders WHERE job_id = :job_id AND source = 'staged' AND state <> 'failed' LIMIT 1

-- name: waits
SELECT 1 FROM renders WHERE job_id = :job_id AND kind = :kind AND state <> 'failed' LIMIT 1

-- name: retire_key
INSERT INTO retired_keys (job_id, backend, bucket, key, variant, remove_at, redirect_until, size_bytes)
VALUES (:job_id, :backend, :bucket, :key, :variant, :remove_at, :redirect_until, :size_bytes)
ON CONFLICT (backend, bucket, key) DO UPDATE SET remove_at = excluded.remove_at, redirect_until = excluded.redirect_until

-- name: retire_all_of
-- The image was deleted: its replaced files go now, and lead nowhere.
UPDATE retired_keys SET remove_at = iif(remove_at IS NULL, NULL, :now), redirect_until = NULL WHERE job_id = :job_id

-- name: drop_renders_of
DELETE FROM renders WHERE job_id = :job_id

-- name: retired_due
SELECT * FROM retired_keys WHERE remove_at <= :now AND key_id > :after ORDER BY key_id LIMIT :limit

-- name: retired_due_of
SELECT * FROM retired_keys WHERE job_id = :job_id AND remove_at <= :now

-- name: retired_removed
UPDATE retired_keys SET remove_at = NULL WHERE key_id = :key_id

-- name: drop_retired
-- Files that are gone and whose URLs lead nowhere any more.
DELETE FROM retired_keys WHERE remove_at IS NULL AND (redirect_until IS NULL OR redirect_until <= :now)

-- name: redirect
SELECT variant FROM retired_keys
WHERE job_id = :job_id AND bucket = :bucket AND key = :key AND redirect_until > :now

-- name: refresh_render
-- At its claim: what was ordered, as the image is now, under new keys.
UPDATE renders SET recipe = :recipe, keys = :keys WHERE render_id = :render_id

-- name: insert_render_task
INSERT INTO render_tasks (task_id, state, recipe, variants, bucket, missing_only, upto_row, began_at)
SELECT :task_id, 'running', :recipe, :variants, :bucket, :missing_only, coalesce(max(rowid), 0), :began_at FROM processing_jobs

-- name: running_render_task
SELECT * FROM render_tasks WHERE state = 'running'

-- name: latest_render_task
SELECT * FROM render_tasks ORDER BY began_at DESC LIMIT 1

-- name: move_render_task
UPDATE render_tasks SET after_row = :after, examined = examined + :examined, ordered = ordered + :ordered
WHERE task_id = :task_id AND state = 'running'

-- name: count_rendered
UPDATE render_tasks SET rendered = rendered + 1, from_variant = from_variant + :from_variant WHERE task_id = :task_id

-- name: count_not_rendered
UPDATE render_tasks SET failed = failed + 1 WHERE task_id = :task_id

-- name: end_render_task
UPDATE render_tasks SET state = :state, ended_at = :now WHERE task_id = :task_id AND state = 'running'

-- name: drop_render_tasks
DELETE FROM render_tasks WHERE state <> 'running'

-- name: insert_render_finding
-- The first ones of each kind.
INSERT INTO render_findings (task_id, image_id, kind, reason)
SELECT :task_id, :image_id, :kind, :reason
WHERE (SELECT count(*) FROM render_findings WHERE task_id = :task_id AND kind = :kind) < 100

-- name: drop_render_findings
DELETE FROM render_findings

-- name: render_findings
SELECT image_id, kind, reason FROM render_findings WHERE task_id = :task_id ORDER BY kind, rowid LIMIT 2 * :limit

-- name: renders_of_task
SELECT count(*) AS waiting FROM renders WHERE task_id = :task_id AND state <> 'failed'

-- name: waiting_of_task
SELECT * FROM renders WHERE task_id = :task_id AND state <> 'failed'

-- name: completed_between
SELECT * FROM processing_jobs
WHERE rowid > :after AND rowid <= :upto AND +status = 'completed' AND +deleted_at IS NULL
  AND (:bucket IS NULL OR storage_bucket = :bucket)
ORDER BY rowid
