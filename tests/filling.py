"""Tables with many rows, written by the server itself."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, NullPool, create_engine, inspect

from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter

MANY = 1_000_000

_NUMBERS = {
    "postgresql": "SELECT n FROM generate_series(0, {last}) AS n",
    "mysql": "SELECT seq AS n FROM seq_0_to_{last}",
}


def engine_for(adapter: SQLAlchemyAdapter) -> Engine:
    """Return an engine without the adapter's time-outs."""
    return create_engine(adapter._dialect.url, poolclass=NullPool)


def fill(adapter: SQLAlchemyAdapter, *kinds: str, count: int = MANY) -> None:
    """Add rows: of each kind ``count``, its queue, priority, state and run_at being SQL expressions over n."""
    with engine_for(adapter).begin() as connection, _without_indexes(connection, adapter):
        numbers = _NUMBERS[connection.dialect.name].format(last=count - 1)
        for columns in kinds:
            connection.exec_driver_sql(
                f"""
                INSERT INTO background_jobs
                  (queue, priority, state, run_at,
                   job, args, attempts, max_attempts, lock_token, deaths, alone, created_at)
                SELECT {columns}, 'm:J', '{{}}', 0, 24, 0, 0, 0, '2029-01-01' FROM ({numbers}) AS numbers
                """.replace("%", "%%")
            )


@contextlib.contextmanager
def _without_indexes(connection: Connection, adapter: SQLAlchemyAdapter) -> Iterator[None]:
    """Build the indexes once the rows are there: that takes a third of the time."""
    jobs = adapter.tables.jobs
    there = {index["name"] for index in inspect(connection).get_indexes(jobs.name)}
    indexes = [index for index in jobs.indexes if index.name in there]
    for index in indexes:
        index.drop(connection)
    yield
    for index in indexes:
        index.create(connection)
