"""Coroutines that work in the transaction that settles them, by each asynchronous driver."""

import asyncio

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from conftest import worker_record
from sapwood import Executor, Job, Sapwood, Worker
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import TransactionMisused
from sapwood.lifecycle import Released, Retried, Succeeded
from sapwood.record import JobState

DRIVERS = {
    "aiosqlite": ("sqlite", "sqlite+aiosqlite"),
    "asyncpg": ("postgresql", "postgresql+asyncpg"),
    "psycopg": ("postgresql", "postgresql+psycopg"),
    "aiomysql": ("mysql", "mysql+aiomysql"),
    "asyncmy": ("mysql", "mysql+asyncmy"),
}


class Do(Job, name="transactional.async", adapter="asyncio", transactional=True):
    async def perform(self, number: int, fail: bool = False) -> None:
        connection = await self.context.aconnection()
        await connection.execute(text("INSERT INTO effects VALUES (:number)"), {"number": number})
        session = await self.context.asession()
        await session.execute(text("INSERT INTO effects VALUES (:number)"), {"number": number + 1})
        await session.commit()
        await session.execute(text("INSERT INTO effects VALUES (:number)"), {"number": number + 2})
        await Later.aperform_later()
        with pytest.raises(TransactionMisused):
            await connection.commit()
        if fail:
            raise ValueError("after its work")


class Later(Job, name="transactional.async_later", adapter="asyncio"):
    async def perform(self) -> None: ...


@pytest.fixture(params=DRIVERS)
def app(request, database_url):
    kind, driver = DRIVERS[request.param]
    url = make_url(database_url(kind)).set(drivername=driver)
    app = Sapwood(adapters={"asyncio": SQLAlchemyAdapter(create_async_engine(url))})
    app.migrate()
    with app.adapter("asyncio")._writing() as connection:
        connection.execute(text("CREATE TABLE effects (number INTEGER)"))
    yield app
    app.close()


def effects(app):
    with app.adapter("asyncio")._reading() as connection:
        return sorted(connection.scalars(text("SELECT number FROM effects")))


def claimed(app):
    adapter = app.adapter("asyncio")
    adapter.register(worker_record("w"))
    (record,) = adapter.claim("w", limit=1).claimed
    return record


def test_the_work_and_the_outcome_are_committed_together(app):
    adapter = app.adapter("asyncio")
    Do.perform_later(1, fail=True)
    record = claimed(app)
    assert isinstance(Executor(app).execute(record), Retried)
    assert (effects(app), len(adapter.jobs())) == ([], 1)
    adapter.clear(running=True)
    Do.perform_later(1)
    (record,) = adapter.claim("w", limit=1).claimed
    assert asyncio.run(Executor(app).aexecute(record)) == Succeeded(written=True)
    assert (effects(app), [left.job for left in adapter.jobs()]) == ([1, 2, 3], ["transactional.async_later"])


def test_a_worker_runs_them_beside_others_and_the_fenced_are_undone(app):
    Do.perform_later(1)
    record = claimed(app)
    app.adapter("asyncio").rescue("w", notes={})
    assert asyncio.run(Executor(app).aexecute(record)) == Released(written=True)
    assert effects(app) == []
    for number in (11, 21):
        Do.perform_later(number)
    assert Worker(app, adapter="asyncio").workoff().succeeded == 6
    assert effects(app) == [1, 2, 3, 11, 12, 13, 21, 22, 23]


def test_inline_it_commits_or_joins_the_callers_session(app):
    adapter = app.adapter("asyncio")

    async def inline():
        await Do.perform_now(1)
        engine = create_async_engine(adapter._async_url)
        async with AsyncSession(engine) as session:
            await Do.set(connection=session).perform_now(11)
            await session.rollback()
            with pytest.raises(ValueError, match="after its work"):
                await Do.set(connection=session).perform_now(21, fail=True)
            await Do.set(connection=session).perform_now(31)
            await session.commit()
        await engine.dispose()

    asyncio.run(inline())
    assert effects(app) == [1, 2, 3, 31, 32, 33]


def test_one_that_is_cancelled_while_it_waits_for_its_turn_leaves_it_to_others(database_url):
    url = make_url(database_url("sqlite")).set(drivername="sqlite+aiosqlite")
    app = Sapwood(adapters={"asyncio": SQLAlchemyAdapter(create_async_engine(url))})
    adapter = app.adapter("asyncio")
    adapter.migrate()

    async def cancelled():
        with adapter._dialect.turn(adapter.transaction(None)):
            waits = asyncio.create_task(adapter.transaction(None, asynchronous=True).aconnection())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waits.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await waits
        with adapter._dialect._turn.held(0) as is_free:
            assert is_free

    asyncio.run(cancelled())
    assert adapter.counts() == {}
    app.close()


def test_a_function_and_a_coroutine_are_not_mixed_up(app):
    class Mixed(Job, name="transactional.mixed", adapter="asyncio", transactional=True):
        async def perform(self) -> None:
            self.context.connection  # noqa: B018 - to look is to open

    Mixed.perform_later()
    record = claimed(app)
    outcome = Executor(app).execute(record)
    assert isinstance(outcome, Retried)
    assert "aconnection" in outcome.failure.error
    assert app.adapter("asyncio").get(record.id).state is JobState.RUNNING
