"""Many jobs at once: in few statements, each no larger than the server takes, and ids in the order of the jobs."""

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import NullPool, create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine

import servers
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.record import JobDraft

KIB = 1024
LATER = datetime(2040, 1, 1, tzinfo=UTC)


@pytest.fixture
def adapter_on(database_url):
    made = []

    def make(server):
        adapter = SQLAlchemyAdapter(database_url(server))
        adapter.migrate()
        made.append(adapter)
        return adapter

    yield make
    for adapter in made:
        adapter.close()


def varied(count):
    """Drafts that differ in all that can differ."""
    return [
        JobDraft(
            job=f"m:J{number % 7}",
            args=f'{{"n": "{number}, \\"é\\" %s %(x)s :y"}}',
            queue=f"ü{number % 3}",
            priority=1 + number % 100,
            max_attempts=1 + number % 5,
            run_at=LATER if number % 2 else None,
        )
        for number in range(count)
    ]


def alike(count):
    return [JobDraft(job="m:J", args="{}")] * count


def seen(adapter, ids):
    return [
        (r.id, r.job, r.args, r.queue, r.priority, r.max_attempts, r.run_at if r.run_at == LATER else None)
        for r in adapter.jobs(after=min(ids) - 1, limit=len(ids) + 1)
    ]


def stored_as(ids, drafts):
    return [(i, d.job, d.args, d.queue, d.priority, d.max_attempts, d.run_at) for i, d in zip(ids, drafts, strict=True)]


@pytest.mark.parametrize("drafts", [varied(2_100), alike(2_100)], ids=["varied", "alike"])
@pytest.mark.parametrize("server", ["sqlite", "postgresql", "mysql"])
def test_ids_come_in_the_order_of_the_jobs(server, drafts, adapter_on):
    adapter = adapter_on(server)
    ids = adapter.enqueue(drafts)
    assert seen(adapter, ids) == stored_as(ids, drafts)


def test_ids_come_in_order_on_an_asynchronous_connection(adapter_on):
    adapter, drafts = adapter_on("postgresql"), varied(2_100)

    async def main():
        engine = create_async_engine(adapter._dialect.url, poolclass=NullPool)
        async with engine.begin() as made:
            return await made.run_sync(lambda sync: adapter.enqueue(drafts, connection=sync))

    ids = asyncio.run(main())
    assert seen(adapter, ids) == stored_as(ids, drafts)


def test_postgresql_is_sent_one_statement_for_all(adapter_on):
    adapter, inserts = adapter_on("postgresql"), []
    engine = create_engine(adapter._dialect.url, poolclass=NullPool)

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, *_):
        if "INSERT" in statement:
            inserts.append(statement)

    with engine.begin() as made:
        adapter.enqueue(varied(2_100), connection=made)
    assert len(inserts) == 1


@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
@pytest.mark.parametrize("mebibytes", [4, 16])
def test_no_statement_is_larger_than_the_server_takes(mebibytes, joined, adapter_on):
    adapter = adapter_on("mysql")
    server = make_url(adapter._dialect.url)
    ((before,),) = servers._execute(server, "SELECT @@global.max_allowed_packet")
    servers._execute(server, f"SET GLOBAL max_allowed_packet = {mebibytes * KIB * KIB}")
    try:
        # Each of its quotes takes two bytes on the way.
        drafts = [JobDraft(job="m:J", args='"' * 900 * KIB)] * 20
        engine = create_engine(server, poolclass=NullPool)
        if joined:
            with engine.begin() as made:
                ids = adapter.enqueue(drafts, connection=made)
        else:
            adapter.close()
            ids = adapter.enqueue(drafts)
    finally:
        servers._execute(server, f"SET GLOBAL max_allowed_packet = {before}")
    assert [record.id for record in adapter.jobs()] == sorted(ids) == list(ids)
    assert len(ids) == 20


def test_parts_that_are_stored_are_stored_together(adapter_on):
    adapter = adapter_on("mysql")
    drafts = [JobDraft(job="m:J", args="{}")] * 1_500 + [JobDraft(job="m:J", args="{}", priority=100_000)]
    with pytest.raises(Exception, match="priority"):
        adapter.enqueue(drafts)
    assert adapter.jobs() == []
