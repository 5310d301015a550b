-- Which service this database belongs to. The same ID is in the data folder and in each local storage folder, so
-- that a mistyped path, a lost database or a disk that is not mounted is noticed before anything is removed.
-- A table of its own: no row of the others is about the service itself, and this id must be lost with the rows.

CREATE TABLE service_instance (
  one            INTEGER PRIMARY KEY CHECK (one = 1),
  id             TEXT NOT NULL,
  storage_marked INTEGER NOT NULL DEFAULT 0            -- 1: a local storage folder has got the id
) STRICT;
