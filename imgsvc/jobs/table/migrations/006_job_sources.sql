-- Which jobs have the same user, source and recipe, so that a photo that is uploaded twice is rendered once. A table of
-- its own, which is empty at first: an index of processing_jobs would make the first start of an old database read all rows.

CREATE TABLE job_sources (                             -- of jobs that have neither failed nor been deleted
  job_id    TEXT PRIMARY KEY,
  source    BLOB NOT NULL,                             -- digest of organisation, user, bytes and recipe
  turn      INTEGER NOT NULL,                          -- of the job, at its acceptance
  completed INTEGER NOT NULL DEFAULT 0,
  twin      TEXT                                       -- a completed job with the same source; NULL: none, or of no use
) STRICT;

CREATE INDEX sources_by_source ON job_sources (source, completed);
CREATE INDEX sources_with_twin ON job_sources (turn) WHERE twin IS NOT NULL;
