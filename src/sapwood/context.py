"""What a job may know of its own run."""

from collections.abc import Callable
from datetime import datetime
from uuid import uuid4

from msgspec import Struct, field


class JobContext(Struct, frozen=True, kw_only=True):
    """The run that a job is in: ``self.context``. Made without arguments it stands for no particular run, in tests."""

    job_id: int = 0
    """The id of the stored job, 0 where it runs inline."""

    job: str = ""
    """The stored name of the class."""

    queue: str = "default"
    priority: int = 50

    attempt: int = 1
    """The number of this try, 1 for the first."""

    max_attempts: int = 24

    run_at: datetime | None = None
    """When the job was due, None where it runs inline."""

    created_at: datetime | None = None
    """When the job was stored, None where it runs inline."""

    lock_token: int = 0
    """Grows with every claim of the job: lets another system tell a late try from a later one."""

    worker: str | None = None
    """Id of the worker, None where the job runs inline."""

    is_stopping: Callable[[], bool] = lambda: False

    @property
    def stopping(self) -> bool:
        """Whether the worker wants to stop: a long job may end here, and raise to be tried again."""
        return self.is_stopping()

    inline_key: str = field(default_factory=lambda: f"inline-{uuid4().hex}")

    @property
    def idempotency_key(self) -> str:
        """The same for every try of this job: hand it to services that refuse to do one thing twice.

        Two inline runs have two keys, since they are two jobs.
        """
        return str(self.job_id) if self.job_id else self.inline_key
