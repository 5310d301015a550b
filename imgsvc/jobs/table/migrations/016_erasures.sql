-- People who are erased. Tables of their own: an erasure is about no single job, and outlives all rows of the person. While
-- it runs its row names the person; once it has ended only a salted hash is left, by which the person can be recognized
-- but not found.

CREATE TABLE erasures (
  number     INTEGER PRIMARY KEY AUTOINCREMENT,        -- the order, which an upload compares with that of its begin
  erasure_id TEXT NOT NULL UNIQUE,
  org_id     TEXT,                                     -- NULL once it has ended
  user_id    TEXT,
  salt       BLOB NOT NULL,
  person     BLOB NOT NULL,                            -- SHA-256 of the salt, the organisation and the user
  mark       TEXT NOT NULL,                            -- random; in the audit trail it stands for what was erased
  step       TEXT NOT NULL CHECK (step IN ('images', 'tables', 'events', 'files', 'done')),
  position   INTEGER NOT NULL DEFAULT 0,               -- the last audit event that was looked at
  counts     TEXT NOT NULL DEFAULT '{}',               -- JSON {what: number}
  repeated   INTEGER NOT NULL DEFAULT 0,               -- 1: after a restore
  started_at TEXT NOT NULL,
  ended_at   TEXT
) STRICT;

CREATE UNIQUE INDEX erasures_running ON erasures (org_id, user_id) WHERE ended_at IS NULL;

-- The deleted images of the erasures that run: their files must be gone before these end. A column of processing_jobs would
-- need an index, for which the first start of an old database would read all rows.
CREATE TABLE erased_jobs (
  number INTEGER NOT NULL,
  job_id TEXT NOT NULL,
  PRIMARY KEY (number, job_id)
) STRICT, WITHOUT ROWID;
