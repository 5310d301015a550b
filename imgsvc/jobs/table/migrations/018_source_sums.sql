-- How many sources are kept, and their bytes: one row, which triggers keep right, as in 005_job_sums.sql.

CREATE TABLE source_sums (
  images INTEGER NOT NULL,
  bytes  INTEGER NOT NULL
) STRICT;

INSERT INTO source_sums (images, bytes)
SELECT count(*), coalesce(sum(source_bytes), 0) FROM processing_jobs INDEXED BY sources_kept WHERE source_sha256 IS NOT NULL;

CREATE TRIGGER source_kept AFTER UPDATE OF source_sha256, source_bytes ON processing_jobs
WHEN OLD.source_sha256 IS NOT NEW.source_sha256 OR OLD.source_bytes IS NOT NEW.source_bytes
BEGIN
  UPDATE source_sums
  SET images = images + (NEW.source_sha256 IS NOT NULL) - (OLD.source_sha256 IS NOT NULL),
      bytes = bytes + iif(NEW.source_sha256 IS NULL, 0, coalesce(NEW.source_bytes, 0))
        - iif(OLD.source_sha256 IS NULL, 0, coalesce(OLD.source_bytes, 0));
END;

CREATE TRIGGER source_row_dropped AFTER DELETE ON processing_jobs WHEN OLD.source_sha256 IS NOT NULL
BEGIN
  UPDATE source_sums SET images = images - 1, bytes = bytes - coalesce(OLD.source_bytes, 0);
END;
