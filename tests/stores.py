"""The adapters under test. One that is added here runs the conformance suite and the state machine."""

import copy
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from sqlalchemy import delete

import plugin_servers
from sapwood.adapters.base import BaseAdapter
from sapwood.adapters.memory import MemoryAdapter
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.testing.conformance import Helpers

_numbers = itertools.count(1)


class Store(Struct, frozen=True):
    """A kind of adapter, and how to get an empty one."""

    kind: type[BaseAdapter]

    open: Callable[[type[BaseAdapter], Path], BaseAdapter]
    """Make an adapter of that kind, or of a mutant of it; a folder may be used."""

    helpers: Helpers


def _open_memory(kind, folder):
    return kind()


def _forget_in_memory(adapter, worker):
    del adapter._workers[worker]


def _open_sqlite(kind, folder):
    adapter = kind(f"sqlite:///{folder}/{next(_numbers)}.db", durability="normal")
    adapter.migrate()
    return _mutated(adapter)


def _mutated(adapter):
    """Let a mutant change what it could not while it was made."""
    if hasattr(adapter, "mutate"):
        adapter.mutate()
    return adapter


def _forget_in_sql(adapter, worker):
    workers = adapter.tables.workers
    with adapter._writing() as connection:
        connection.execute(delete(workers).where(workers.c.id == worker))
    # Its lock would stay open to the end of the tests.
    adapter._dialect.worker_ended(worker)


_opened = []


def close():
    """Close what is shared by the adapters of a run."""
    while _opened:
        _opened.pop().close()


def _on_server(server):
    """Open adapters in one database and on one engine per run: making them anew would take most of the time."""

    @functools.cache
    def shared():
        adapter = SQLAlchemyAdapter(plugin_servers.server(server).new_database())
        adapter.migrate()
        adapter._wake()
        _opened.append(adapter)
        return adapter

    def open_server(kind, folder):
        one = shared()
        adapter = kind(one._dialect._url)
        # A copy: a mutant changes its own only.
        adapter._dialect = copy.copy(one._dialect)
        adapter._engine, adapter._pid, adapter._migrated = one._engine, one._pid, True
        # No case needs a larger pool.
        adapter._provided = 1_000
        with adapter._writing() as connection:
            tables = adapter.tables
            for table in (tables.jobs, tables.attempts, tables.workers):
                restart = " RESTART IDENTITY" if server == "postgresql" else ""
                connection.exec_driver_sql(f"TRUNCATE TABLE {table.name}{restart}")
        # What was learned of the jobs that were there is not true of those to come.
        adapter._dialect.came_late()
        return _mutated(adapter)

    return open_server


STORES = {
    "memory": Store(MemoryAdapter, _open_memory, Helpers(forget_worker=_forget_in_memory)),
    "sqlite": Store(SQLAlchemyAdapter, _open_sqlite, Helpers(forget_worker=_forget_in_sql)),
    "postgresql": Store(SQLAlchemyAdapter, _on_server("postgresql"), Helpers(forget_worker=_forget_in_sql)),
    "mysql": Store(SQLAlchemyAdapter, _on_server("mysql"), Helpers(forget_worker=_forget_in_sql)),
}
