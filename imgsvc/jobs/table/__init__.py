"""The durable job table: SQLite in WAL mode behind one writer."""
