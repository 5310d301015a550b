"""What is known of the machine and this process at one moment."""

from collections.abc import Mapping

from ..jobs.answer_model import AnswerModel
from ..lazy_dataclass import dataclass


class Cpu(AnswerModel):
    """`percent` of all processors since the last sample."""

    percent: float
    count: int


class Memory(AnswerModel):
    total_gb: float
    available_gb: float
    used_gb: float
    percent: float


class Disk(AnswerModel):
    total_gb: float
    used_gb: float
    free_gb: float
    percent: float


class ProcessUse(AnswerModel):
    memory_rss_mb: float
    memory_vms_mb: float
    threads: int


class Resources(AnswerModel):
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
