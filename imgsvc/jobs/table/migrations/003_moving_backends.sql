-- Moving an image may be cut short at any moment: until all is done, its row names both backends.

ALTER TABLE processing_jobs ADD COLUMN also_in TEXT;  -- a second backend, in which copies of its variants may lie
