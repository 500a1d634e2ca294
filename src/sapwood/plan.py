"""What a supervisor is to run: plain values, made by whoever knows the app, for processes that do not."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from sapwood.timing import Timing


class WorkerPlan(Struct, frozen=True, kw_only=True):
    """One worker process."""

    name: str
    """Such as ``default.1``."""

    group: str
    """Such as ``default``: what those that are alike have in common."""

    adapter: str
    queues: Sequence[str] | None = None
    concurrency: int = 5
    poll_interval: float = 0.5
    max_jobs: int | None = None
    max_memory: int | None = None
    max_runtime: float | None = None
    apart: bool = False
    """It runs only jobs that a death has set apart, and ends when there are none."""


class Plan(Struct, frozen=True, kw_only=True):
    """All that a supervisor knows. It may hold passwords: it travels by a pipe, and is never shown."""

    app: str
    """How ``--app`` names the app."""

    directory: str
    """Where workers are started."""

    release: str
    """The release of Sapwood that the workers run."""

    command: Sequence[str]
    """What starts a worker; the descriptor of its link is added."""

    workers: Sequence[WorkerPlan]
    stores: Mapping[str, Mapping[str, Any] | None]
    """By adapter, what opens its store; None where only the app itself can: its workers look after themselves."""

    spec: str | None = None
    """The specification that was given, None where the app's groups were taken."""

    options: Mapping[str, Any] = {}
    """What else was said on the command line, to be said again at a restart."""

    timing: Timing = Timing()
    shutdown_timeout: float = 25
    reload: Sequence[str] | None = None
    """Folders whose files, when they change, have all workers replaced."""

    probe: tuple[str, int] | None = None
    """The host and port on which to answer whether it lives and is ready."""

    quiet: bool = False
    verbose: int = 0

    def __repr__(self) -> str:
        return f"Plan(app={self.app!r}, workers={len(self.workers)})"

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups."""
        return tuple(dict.fromkeys(worker.group for worker in self.workers))

    def encoded(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.encode(self)

    @staticmethod
    def decoded(data: bytes) -> "Plan":
        """Return what :meth:`encoded` made of it."""
        return msgspec.json.decode(data, type=Plan)
