"""A row of the database as it is, without the service's own code."""

import json
import sqlite3
from typing import Any

UNFINISHED = ("pending", "processing", "retrying")


class Row:
    """A row of processing_jobs."""

    def __init__(self, row: sqlite3.Row) -> None:
        values = dict(row)
        self.values = values
        self.job_id: str = values["job_id"]
        self.image_id: str = values["image_id"]
        self.status: str = values["status"]
        self.bucket: str = values["storage_bucket"]
        self.queue: str | None = values["queue"]
        self.staged: str | None = values["staging_path"]
        self.paths: dict[str, str] = json.loads(values["processed_paths"])
        self.measured: dict[str, dict[str, Any]] = json.loads(values["processing_metadata"]).get("variants", {})
        self.names = {one["name"] for one in json.loads(values["recipe"])["variants"]}
        self.further_names = {one["name"] for one in json.loads(values["recipe"]).get("further", ())}
        self.ordered: set[str] = set()  # variants of rows in `renders`
        self.deleted = values["deleted_at"] is not None
        self.further: set[tuple[str, str]] = set()  # (backend, path) of what is being made, or was replaced
        self.wants_source = False
        self.source_key: str | None = values.get("source_key")
        self.kept = bool(values.get("source_sha256"))
        self.backends = [values["storage_backend"], *([values["also_in"]] if values.get("also_in") else [])]

    def __str__(self) -> str:
        return f"Job {self.job_id} ({'deleted' if self.deleted else self.status})"

    def has(self, *columns: str) -> bool:
        return all(self.values[column] is not None for column in columns)

    def lacks(self, *columns: str) -> bool:
        return all(self.values[column] is None for column in columns)
