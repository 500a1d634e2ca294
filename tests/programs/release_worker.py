"""A worker of this release, or of the one whose tables had only the first step. Its jobs note which of them ran them.

Arguments: the URL of the jobs, the file of the effects, "old" or "new".
"""

import sqlite3
import sys
import threading
import time
from datetime import datetime

import msgspec
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, insert

from sapwood import Job, Sapwood, Worker
from sapwood.adapters import migrations, tables
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.record import WorkerRecord

_local = threading.local()


class Effect(Job, name="release.effect"):
    def perform(self, number: int) -> None:
        if not hasattr(_local, "effects"):
            _local.effects = sqlite3.connect(sys.argv[2], timeout=30, isolation_level=None)
        time.sleep(0.002)
        _local.effects.execute("INSERT INTO effects VALUES (?, ?)", (number, sys.argv[3]))


def become_the_old_release() -> None:
    """Know one step and the columns that it made, as the code of that release did."""
    migrations.STEPS = migrations.STEPS[:1]
    migrations.SCHEMA_VERSION = 1
    tables._workers = _old_workers
    SQLAlchemyAdapter.register = _old_register


def _old_workers(metadata: MetaData, prefix: str) -> Table:
    return Table(
        f"{prefix}workers",
        metadata,
        Column("id", String(32), primary_key=True),
        Column("host", String(255), nullable=False),
        Column("pid", Integer, nullable=False),
        Column("queues", tables._Text),
        Column("concurrency", Integer, nullable=False),
        Column("release", String(32), nullable=False),
        Column("beat", BigInteger, nullable=False),
        Column("beat_at", tables.Instant),
        Column("started_at", tables.Instant),
        **tables._MYSQL,
    )


def _old_register(self: SQLAlchemyAdapter, worker: WorkerRecord, *, now: datetime | None = None) -> None:
    self._connected_and_migrated()
    self._dialect.worker_began(worker.id)
    row = msgspec.structs.asdict(worker) | {"queues": None, "release": "0.1"}
    row = {name: value for name, value in row.items() if name in self._tables.workers.c}
    with self._writing() as connection:
        moment = self._moment(connection, now)
        connection.execute(insert(self._tables.workers), row | {"beat_at": moment, "started_at": moment})


if __name__ == "__main__":
    if sys.argv[3] == "old":
        become_the_old_release()
        Sapwood(sys.argv[1]).migrate()
    print("there", flush=True)  # noqa: T201
    Worker(Sapwood(sys.argv[1]), concurrency=2).run()
