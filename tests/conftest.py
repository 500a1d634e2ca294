"""What tests share."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sapwood.adapters.base import BaseAdapter
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.record import WorkerRecord

# The same examples in every run, however slow the machine: a failure can be repeated, and none is of the clock.
settings.register_profile("sapwood", derandomize=True, database=None, deadline=None)
settings.load_profile("sapwood")

pytest_plugins = ["plugin_servers"]

_numbers = itertools.count(1)


@pytest.fixture
def database(tmp_path: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def adapter(database: str) -> Iterator[SQLAlchemyAdapter]:
    """An adapter on that file."""
    adapter = SQLAlchemyAdapter(database)
    yield adapter
    adapter.close()


@pytest.fixture(scope="session", autouse=True)
def stores_closed() -> Iterator[None]:
    """Close the connections that the conformance tests share."""
    yield
    import stores

    stores.close()


def worker_record(name: str | None = None) -> WorkerRecord:
    """A worker that was never registered."""
    name = name or f"worker-{next(_numbers)}"
    return WorkerRecord(id=name, host="here", pid=1, queues=None, concurrency=1, release="0")


def until(adapter: BaseAdapter, holds: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait until something holds, looking again whenever somebody has changed the store."""
    changed = threading.Event()
    end = adapter.listen(changed.set)
    deadline = time.monotonic() + seconds
    try:
        while not holds():
            assert time.monotonic() < deadline, "waited too long"
            changed.wait(0.1)
            changed.clear()
    finally:
        end()
