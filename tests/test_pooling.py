"""Connections to a server: as many as workers need, no more than they are given, and a word where there is no room."""

import threading

import msgspec
import pytest
from sqlalchemy import NullPool, create_engine, text

from conftest import worker_record
from sapwood import Job, Sapwood, Worker, enqueue_all
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import ConfigurationError, StoreUnavailable
from sapwood.record import JobDraft

DRAFT = JobDraft(job="m:J", args="{}")
SLOTS = 20
on_servers = pytest.mark.parametrize("server", ["postgresql", "mysql"])


class Second(Job, name="pooling.second"):
    def perform(self) -> None: ...


class First(Job, name="pooling.first", max_attempts=1):
    def perform(self) -> None:
        Second.perform_later()


@pytest.fixture
def adapter_of(database_url):
    made = []

    def make(server, **options):
        made.append(SQLAlchemyAdapter(database_url(server), **options))
        made[-1].migrate()
        return made[-1]

    yield make
    for adapter in made:
        adapter.close()


@on_servers
def test_every_slot_of_a_worker_can_enqueue_at_the_same_time(server, adapter_of, monkeypatch):
    adapter = adapter_of(server)
    app = Sapwood(adapter)
    enqueue_all([First.build() for _ in range(SLOTS)])
    together = threading.Barrier(SLOTS)
    insert = adapter._insert

    def meeting(connection, drafts, now):
        together.wait(20)
        return insert(connection, drafts, now)

    monkeypatch.setattr(adapter, "_insert", meeting)
    tally = Worker(app, concurrency=SLOTS).workoff()
    assert (tally.succeeded, tally.failed) == (2 * SLOTS, 0)


@on_servers
def test_no_more_connections_are_opened_than_are_given(server, adapter_of, caplog):
    adapter = adapter_of(server, pool_size=2)
    app = Sapwood(adapter)
    enqueue_all([First.build() for _ in range(20)])
    tally = Worker(app, concurrency=10).workoff()
    assert (tally.succeeded, tally.failed) == (40, 0)
    assert adapter._engine.pool.checkedin() <= 2
    assert "pool_size=2 is less than the 13 connections" in caplog.text
    assert adapter.address()["pool_size"] == 2


@on_servers
def test_a_process_whose_connections_are_all_in_use_says_so(server, adapter_of):
    adapter = adapter_of(server, pool_size=1)
    with adapter._reading() as held:
        held.engine.pool._timeout = 0.05
        with pytest.raises(StoreUnavailable, match=r"all 1 connections of this process .* pool_size="):
            adapter.counts()
    assert adapter.counts() == {}


@on_servers
def test_a_worker_that_the_server_has_no_room_for_says_so_when_it_starts(server, adapter_of, caplog):
    adapter = adapter_of(server)
    adapter.register(worker_record("small"))
    assert caplog.text == ""
    adapter.register(wide("wide"))
    (warning,) = caplog.messages
    most = {"postgresql": "SHOW max_connections", "mysql": "SELECT @@max_connections"}
    with create_engine(adapter._dialect.url, poolclass=NullPool).connect() as connection:
        limit = int(connection.scalar(text(most[server])))
    room = int(warning.partition("has room for ")[2].split()[0])
    assert limit - 60 < room < limit
    assert "raise max_connections, lower concurrency, or set pool_size" in warning
    adapter.unregister("wide")
    adapter.register(wide("again"))
    assert len(caplog.messages) == 1, "it is told once"


def test_the_room_behind_a_pooler_is_not_known(pgbouncer_url, caplog):
    adapter = SQLAlchemyAdapter(pgbouncer_url)
    adapter.migrate()
    adapter.register(wide("wide"))
    assert caplog.text == ""
    adapter.close()


@pytest.mark.parametrize("pool_size", [0, -1, 2.5, True, "5"])
def test_a_pool_without_connections_makes_no_sense(pool_size):
    with pytest.raises(ConfigurationError, match="pool_size"):
        SQLAlchemyAdapter("postgresql://db/shop", pool_size=pool_size)


def wide(name):
    return msgspec.structs.replace(worker_record(name), concurrency=1_000)
