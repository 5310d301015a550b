-- When images expire, and the clocks by which the service tells that a moment has really come.

ALTER TABLE processing_jobs ADD COLUMN expires_at TEXT;  -- NULL: never

CREATE INDEX images_expiring ON processing_jobs (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;

-- The clocks as they were last read, each minute while the service runs.
ALTER TABLE service_instance ADD COLUMN clock_wall REAL;      -- seconds since 1970
ALTER TABLE service_instance ADD COLUMN clock_boot REAL;      -- seconds since the boot, CLOCK_BOOTTIME
ALTER TABLE service_instance ADD COLUMN clock_boot_id TEXT;
ALTER TABLE service_instance ADD COLUMN clock_doubted INTEGER NOT NULL DEFAULT 0;  -- 1: they had not agreed for an hour
