"""What is particular to PostgreSQL: wake-ups, poolers, and migrations that meet."""

import logging
import os
import socket
import sys
import threading
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

import servers
from conftest import until, worker_record
from sapwood import Job, Sapwood, Worker, enqueue_all
from sapwood.adapters import migrations
from sapwood.adapters.dialects.postgresql import _Listener
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.record import JobDraft

DRAFT = JobDraft(job="m:J", args="{}")


class Note(Job, name="postgresql.note"):
    def perform(self, what: str) -> None:
        self.logger.debug(what)


@pytest.fixture
def two(postgresql_url):
    """Two adapters on one database, as two processes have them."""
    pair = SQLAlchemyAdapter(postgresql_url), SQLAlchemyAdapter(postgresql_url)
    pair[0].migrate()
    yield pair
    for adapter in pair:
        adapter.close()


def hearing(adapter: SQLAlchemyAdapter, woken: threading.Event):
    """Listen, and wait until notifications arrive."""
    end = adapter.listen(woken.set)
    assert woken.wait(20), "the first wake-up says that it hears"
    woken.clear()
    return end


def test_an_enqueue_of_another_process_wakes_a_listener(two):
    here, there = two
    woken = threading.Event()
    end = hearing(here, woken)
    there.enqueue([DRAFT])
    assert woken.wait(10)
    end()


def test_a_listener_whose_connection_is_cut_listens_again(two):
    here, there = two
    woken = threading.Event()
    end = hearing(here, woken)
    with there._writing() as connection:
        cut = connection.execute(
            text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        )
        assert cut.scalar() == 1
    assert woken.wait(20), "it hears again"
    woken.clear()
    there.enqueue([DRAFT])
    assert woken.wait(10)
    end()


def test_behind_a_transaction_pooler_everything_works_and_polling_serves(pgbouncer_url):
    app = Sapwood(pgbouncer_url)
    app.migrate()
    adapter = app.adapter()
    enqueue_all([Note.build(str(number)) for number in range(200)])
    worker = Worker(app, poll_interval=0.05)
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(_Deaf, lambda: not adapter.jobs())
    Note.set(wait=0.1).perform_later("later")
    until(_Deaf, lambda: not adapter.jobs())
    worker.stop()
    thread.join(30)
    assert worker.tally.succeeded == 201
    assert adapter.workers() == []
    app.close()


def test_behind_a_transaction_pooler_nobody_is_left_listening(pgbouncer_url, postgresql_url):
    adapter = SQLAlchemyAdapter(pgbouncer_url)
    adapter.migrate()
    told = threading.Event()
    handler = logging.Handler()
    handler.handle = lambda record: told.set() if "polling serves" in record.getMessage() else None
    logger = logging.getLogger("sapwood")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        end = adapter.listen(lambda: None)
        assert told.wait(20), "it is noticed that notifications do not arrive"
        assert channels_of_all_servers(pgbouncer_url, postgresql_url) == []
        end()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        adapter.close()


def channels_of_all_servers(pgbouncer_url, postgresql_url):
    """Ask every connection that the pooler has to a database, each in a transaction of its own at the same time."""
    name = make_url(pgbouncer_url).database
    asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = :name"
    ((servers_there,),) = servers._execute(make_url(postgresql_url), asked, name=name)
    assert servers_there
    engine = create_engine(pgbouncer_url, poolclass=NullPool)
    pids, channels = set(), []
    with ExitStack() as held:
        for _ in range(servers_there):
            connection = held.enter_context(engine.connect())
            pids.add(connection.scalar(text("SELECT pg_backend_pid()")))
            channels += connection.scalars(text("SELECT pg_listening_channels()"))
    assert len(pids) == servers_there
    return channels


def test_the_listener_notices_a_dead_network_as_the_pool_does(two):
    adapter, _ = two
    adapter.counts()
    with _Listener(adapter._dialect._engine, lambda: None, "")._connected() as listening:
        with closing(socket.socket(fileno=os.dup(listening.fileno()))) as seen:
            if sys.platform == "linux" and seen.family != socket.AF_UNIX:
                assert seen.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
                assert seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
        given = listening.info.get_parameters()
        assert (given["connect_timeout"], given["application_name"]) == ("5", "sapwood")
        with adapter._reading() as pooled:
            assert pooled.connection.driver_connection.info.get_parameters() == given


class _Deaf:
    """Waits by looking alone."""

    @staticmethod
    def listen(wake):
        return lambda: None


def test_two_migrations_that_meet_make_the_tables_once(postgresql_url):
    adapters = [SQLAlchemyAdapter(postgresql_url) for _ in range(4)]
    start, steps = threading.Barrier(len(adapters)), []

    def migrate(adapter: SQLAlchemyAdapter) -> None:
        start.wait()
        steps.extend(adapter.migrate())

    threads = [threading.Thread(target=migrate, args=(adapter,)) for adapter in adapters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps == [step.name for step in migrations.STEPS]
    for adapter in adapters:
        assert adapter.pending_migrations() == []
        adapter.close()


def test_a_claim_comes_back_in_utc_whatever_the_zone_of_the_server(two):
    adapter, _ = two
    adapter.enqueue([DRAFT])
    adapter.register(worker_record("w"))
    (record,) = adapter.claim("w", limit=1).claimed
    for moment in (record.run_at, record.created_at, record.locked_at):
        assert moment.utcoffset().total_seconds() == 0
