"""What is known of the machine and this process at one moment."""

from collections.abc import Mapping

from pydantic import BaseModel

from ..lazy_dataclass import dataclass


class Cpu(BaseModel):
    """`percent` of all processors since the last sample."""

    percent: float
    count: int


class Memory(BaseModel):
    total_gb: float
    available_gb: float
    used_gb: float
    percent: float


class Disk(BaseModel):
    total_gb: float
    used_gb: float
    free_gb: float
    percent: float


class ProcessUse(BaseModel):
    memory_rss_mb: float
    memory_vms_mb: float
    threads: int


class Resources(BaseModel):
    cpu: Cpu
    memory: Memory
    disk_root: Disk
    process: ProcessUse


@dataclass(frozen=True, slots=True)
class HostSample:
    """One sample. Sizes in MB; `storage` is None if its folder can't be read; `rss` is by process ID."""

    resources: Resources
    storage: Disk | None
    database_mb: float
    rss: Mapping[int, float]
