"""Background jobs for Python, in the database the application already has."""

import importlib
from typing import TYPE_CHECKING, Any

from sapwood._version import __version__
from sapwood.adapters.base import BaseAdapter
from sapwood.adapters.memory import MemoryAdapter
from sapwood.app import Sapwood, WorkerGroup
from sapwood.context import JobContext
from sapwood.errors import SapwoodError
from sapwood.handle import JobHandle
from sapwood.job import FunctionJob, Job, PendingJob, aenqueue_all, enqueue_all, job
from sapwood.record import JobRecord, JobState

if TYPE_CHECKING:
    from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
    from sapwood.executor import Executor
    from sapwood.worker import Worker

__all__ = [
    "BaseAdapter",
    "Executor",
    "FunctionJob",
    "Job",
    "JobContext",
    "JobHandle",
    "JobRecord",
    "JobState",
    "MemoryAdapter",
    "PendingJob",
    "SQLAlchemyAdapter",
    "Sapwood",
    "SapwoodError",
    "Worker",
    "WorkerGroup",
    "__version__",
    "aenqueue_all",
    "enqueue_all",
    "job",
]

_LAZY = {
    "Executor": "sapwood.executor",
    "SQLAlchemyAdapter": "sapwood.adapters.sqlalchemy",
    "Worker": "sapwood.worker",
}
"""What a web process may never need, or what is slow to import."""


def __getattr__(name: str) -> Any:
    """Import on first use what is slow to import."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
