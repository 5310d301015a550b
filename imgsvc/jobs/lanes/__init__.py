"""Worker processes, and how many of them fit."""
