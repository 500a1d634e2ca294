"""What is particular to SQLite: plans, files, locks, and joining the application's transaction."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from conftest import worker_record
from sapwood.adapters.base import JobFilter, Settlement
from sapwood.adapters.dialects import sqlite as sqlite_dialect
from sapwood.adapters.migrations import STEPS
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import (
    ConfigurationError,
    ForeignConnection,
    SchemaTooNew,
    StoreReadOnly,
    StoreUnavailable,
    UnsupportedConnection,
    UnsupportedStore,
)
from sapwood.lifecycle import Succeeded, Trace
from sapwood.record import JobDraft, JobState

DRAFT = JobDraft(job="shop.jobs:Mail", args="{}")
NOW = datetime(2030, 1, 1, tzinfo=UTC)


# --- joining ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_joined_job_shares_the_fate_of_the_callers_transaction(adapter, database, end):
    adapter.migrate()
    with Session(create_engine(database)) as session:
        session.execute(text("CREATE TABLE users (id INTEGER)"))
        session.commit()
        session.execute(text("INSERT INTO users VALUES (1)"))
        (job_id,) = adapter.enqueue([DRAFT], connection=session)
        assert adapter.get(job_id) is None, "nobody sees it before the commit"
        getattr(session, end)()
        users = session.scalar(text("SELECT count(*) FROM users"))
    assert ((adapter.get(job_id) is not None), users) == ((True, 1) if end == "commit" else (False, 0))


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_first_ever_enqueue_inside_an_open_write_transaction_works(adapter, database, end):
    engine = create_engine(database)
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE users (id INTEGER)"))
        connection.commit()
        connection.execute(text("INSERT INTO users VALUES (1)"))
        adapter.enqueue([DRAFT], connection=connection)
        assert connection.in_transaction()
        getattr(connection, end)()
    assert len(adapter.jobs()) == (1 if end == "commit" else 0)
    adapter.enqueue([DRAFT])
    assert len(adapter.jobs()) == (2 if end == "commit" else 1)


def test_a_scoped_session_is_joined(adapter, database):
    adapter.migrate()
    session = scoped_session(sessionmaker(create_engine(database)))
    adapter.enqueue([DRAFT, DRAFT], connection=session)
    session.rollback()
    assert adapter.jobs() == []
    session.remove()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_an_async_session_is_joined_through_run_sync(adapter, database, end):
    async def main() -> None:
        engine = create_async_engine(database.replace("sqlite:", "sqlite+aiosqlite:"))
        async with AsyncSession(engine) as session:
            await session.run_sync(lambda sync: adapter.enqueue([DRAFT], connection=sync))
            await getattr(session, end)()
        await engine.dispose()

    adapter.migrate()
    asyncio.run(main())
    assert len(adapter.jobs()) == (1 if end == "commit" else 0)


def test_a_joined_enqueue_neither_commits_nor_closes_nor_opens_another_connection(adapter, database):
    adapter.migrate()
    adapter.close()
    engine = create_engine(database)
    said = []
    for name in ("commit", "rollback", "checkout", "checkin", "close"):
        target = engine.pool if name in {"checkout", "checkin", "close"} else engine
        event.listen(target, name, lambda *_, name=name: said.append(name))
    with engine.connect() as connection:
        said.clear()
        adapter.enqueue([DRAFT], connection=connection)
        assert said == []
        assert not connection.closed
        assert adapter._engine is None, "the adapter's own engine stays closed"
        connection.commit()
    assert len(adapter.jobs()) == 1


def test_nothing_is_attached_to_an_engine_that_is_passed_in(database):
    engine = create_engine(database)
    adapter = SQLAlchemyAdapter(engine)
    adapter.enqueue([DRAFT])
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000, "the driver's own default"
        assert connection.connection.driver_connection.isolation_level == ""
    assert engine.pool is not adapter._engine.pool
    adapter.close()


def test_a_connection_to_another_file_is_refused(adapter, tmp_path):
    adapter.migrate()
    with create_engine(f"sqlite:///{tmp_path}/other.db").connect() as connection:
        connection.execute(text("CREATE TABLE t (id INTEGER)"))
        with pytest.raises(ForeignConnection, match=r"other\.db"):
            adapter.enqueue([DRAFT], connection=connection)


@pytest.mark.parametrize("thing", [object(), sqlite3], ids=["an object", "a module"])
def test_what_is_no_connection_is_refused_by_name(adapter, thing):
    with pytest.raises(UnsupportedConnection, match=type(thing).__name__):
        adapter.enqueue([DRAFT], connection=thing)


def test_an_async_session_in_synchronous_code_is_told_the_way(adapter, database):
    session = AsyncSession(create_async_engine(database.replace("sqlite:", "sqlite+aiosqlite:")))
    with pytest.raises(UnsupportedConnection, match="aperform_later"):
        adapter.enqueue([DRAFT], connection=session)


# --- plans ------------------------------------------------------------------------------------------------------------

MANY = 1_000_000
"""Rows per plan test."""


def fill(adapter: SQLAlchemyAdapter, columns: str) -> None:
    """Write many rows at once; ``columns`` are SQL expressions over n for queue, priority, state and run_at."""
    adapter.migrate()
    with adapter._engine.begin() as connection:
        connection.exec_driver_sql(
            f"""
            WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {MANY - 1})
            INSERT INTO background_jobs
              (queue, priority, state, run_at, job, args, attempts, max_attempts, lock_token, deaths, alone, created_at)
            SELECT {columns}, 'm:J', '{{}}', 0, 24, 0, 0, 0, '2029-01-01 00:00:00.000000' FROM n
            """
        )
        connection.exec_driver_sql("ANALYZE")


def steps_of(adapter: SQLAlchemyAdapter, act) -> tuple[int, list[str]]:
    """Count the virtual machine's steps that ``act`` takes, and collect the plans of its reads."""
    statements, steps = [], [0]

    def count() -> int:
        steps[0] += 1
        return 0

    @event.listens_for(adapter._engine, "before_cursor_execute")
    def note(connection, cursor, statement, parameters, context, executemany):
        cursor.connection.set_progress_handler(count, 1)
        if not executemany and statement.startswith(("SELECT", "WITH")):
            statements.append((statement, parameters))

    act()
    event.remove(adapter._engine, "before_cursor_execute", note)
    plans = []
    with adapter._engine.connect() as connection:
        connection.connection.driver_connection.set_progress_handler(None, 0)
        for statement, parameters in statements:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in rows)
    return steps[0], plans


LIMIT = 100


def test_a_claim_over_a_hundred_queues_sorts_nothing_and_reads_little(adapter):
    fill(adapter, "'q' || (n % 100), 1 + n % 97, 'ready', '2029-01-01 00:00:00.000000'")
    adapter.register(worker_record("w"))
    queues = [f"q{number}" for number in range(100)]
    taken = []
    steps, plans = steps_of(
        adapter, lambda: taken.extend(adapter.claim("w", queues=queues, limit=LIMIT, now=NOW).claimed)
    )
    assert len(taken) == LIMIT
    assert [record.priority for record in taken] == [1] * LIMIT
    assert not [plan for plan in plans if "TEMP B-TREE FOR" in plan and "ORDER BY" in plan]
    assert not [plan for plan in plans if plan.startswith("SCAN background_jobs") and "INDEX" not in plan]
    # A claimed row costs some 130 steps of SQLite's machine, writes included. To read every queue up to the limit
    # would be 10,000 rows and several times as many steps.
    assert steps < 200 * (LIMIT + len(queues))


@pytest.mark.parametrize("queues", [["default"], None], ids=["one queue", "all queues"])
def test_a_million_future_jobs_are_not_stepped_over(adapter, queues):
    fill(adapter, "'default', 1, 'scheduled', '2040-01-01 00:00:00.000000'")
    adapter.register(worker_record("w"))
    adapter.enqueue([DRAFT], now=NOW)
    taken = []
    steps, _ = steps_of(adapter, lambda: taken.extend(adapter.claim("w", queues=queues, limit=LIMIT, now=NOW).claimed))
    assert len(taken) == 1
    assert steps < 2_000


def test_promotion_reads_only_what_it_promotes(adapter):
    fill(adapter, "'default', 1 + n % 100, 'scheduled', '2029-01-01 00:00:00.000000'")
    adapter.claim("w", limit=0)
    promoted = []
    for _ in range(3):
        steps, plans = steps_of(adapter, lambda: promoted.append(adapter.promote(limit=LIMIT, now=NOW)))
        assert not [plan for plan in plans if "USE TEMP B-TREE FOR ORDER BY" in plan]
        assert steps < 200 * (LIMIT + 100)
    assert promoted == [LIMIT] * 3
    ready = adapter.jobs(JobFilter(states=[JobState.READY]), limit=MANY)
    assert {job.priority for job in ready} == {1}, "urgent first within what is due"


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_file_is_made_for_its_owner_alone(adapter, tmp_path):
    before = os.umask(0)
    try:
        adapter.migrate()
        adapter.register(worker_record("w"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert (modes["jobs.db"], modes["jobs.db-wal"], modes["jobs.db.workers"]) == (0o600, 0o600, 0o700)
    assert stat.S_IMODE((tmp_path / "jobs.db.workers" / "w").stat().st_mode) == 0o600


def test_a_file_that_is_there_keeps_its_mode(adapter, tmp_path):
    path = tmp_path / "jobs.db"
    path.touch(0o640)
    path.chmod(0o640)
    adapter.migrate()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_relative_path_is_fixed_when_the_adapter_is_made(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    adapter = SQLAlchemyAdapter("sqlite:///jobs.db")
    monkeypatch.chdir(tmp_path / "b")
    adapter.migrate()
    adapter.close()
    assert (tmp_path / "a" / "jobs.db").exists()
    assert not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
def test_durability_is_full_unless_chosen_otherwise(database, durability, level):
    adapter = SQLAlchemyAdapter(database) if durability == "full" else SQLAlchemyAdapter(database, durability="normal")
    adapter.migrate()
    with adapter._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    adapter.close()
    with pytest.raises(ConfigurationError, match="durability"):
        SQLAlchemyAdapter(database, durability="none")


def test_a_network_file_system_is_refused_and_a_shared_folder_warned_about(database, monkeypatch, caplog):
    monkeypatch.setattr(sqlite_dialect, "_file_system", lambda path: "nfs4")
    with pytest.raises(UnsupportedStore, match="network file system"):
        SQLAlchemyAdapter(database).migrate()
    monkeypatch.setattr(sqlite_dialect, "_file_system", lambda path: "fuse.sshfs")
    adapter = SQLAlchemyAdapter(database)
    adapter.migrate()
    adapter.close()
    assert "fuse.sshfs" in caplog.text


def test_the_file_system_of_a_path_is_that_of_its_nearest_mount():
    with Path("/proc/self/mounts").open() as mounts:
        kinds = {line.split()[1]: line.split()[2] for line in mounts}
    assert sqlite_dialect._file_system(Path("/proc/jobs.db")) == kinds["/proc"]


def test_a_folder_that_is_missing_is_a_named_error(tmp_path):
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        SQLAlchemyAdapter(f"sqlite:///{tmp_path}/missing/jobs.db").enqueue([DRAFT])


def test_a_file_that_is_no_database_is_a_named_error(tmp_path):
    (tmp_path / "jobs.db").write_text("not a database, and long enough to be looked at as one " * 30)
    with pytest.raises(UnsupportedStore, match="not a database"):
        SQLAlchemyAdapter(f"sqlite:///{tmp_path}/jobs.db").enqueue([DRAFT])


def test_a_database_that_cannot_be_written_is_a_named_error(adapter):
    adapter.migrate()
    event.listen(adapter._engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = 1"))
    adapter._engine.dispose()
    with pytest.raises(StoreReadOnly):
        adapter.enqueue([DRAFT])


def test_a_sqlite_uri_and_an_engine_in_memory_are_refused():
    with pytest.raises(UnsupportedStore, match="URI"):
        SQLAlchemyAdapter("sqlite:///file:jobs.db?mode=rw&uri=true")
    with pytest.raises(UnsupportedStore, match="memory"):
        SQLAlchemyAdapter(create_engine("sqlite://"))


def test_a_database_in_memory_serves_one_process():
    adapter = SQLAlchemyAdapter("sqlite:///:memory:")
    assert adapter.is_volatile
    assert adapter.address() is None
    adapter.register(worker_record("w"))
    adapter.enqueue([DRAFT] * 3)
    threads = [threading.Thread(target=adapter.enqueue, args=([DRAFT] * 50,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(adapter.claim("w", limit=1000).claimed) == 203
    adapter.close()


@pytest.mark.parametrize("prefix", ["jobs-", "1jobs", 'a"; DROP TABLE x; --', "a" * 60, "ä"])
def test_a_prefix_that_is_no_identifier_is_refused(database, prefix):
    with pytest.raises(ConfigurationError, match="cannot name a table"):
        SQLAlchemyAdapter(database, prefix=prefix)


def test_two_installations_live_in_one_file(database):
    one, two = SQLAlchemyAdapter(database, prefix="one_"), SQLAlchemyAdapter(database, prefix="two_")
    one.enqueue([DRAFT])
    assert (len(one.jobs()), len(two.jobs())) == (1, 0)
    one.close()
    two.close()


# --- migrations -------------------------------------------------------------------------------------------------------


def test_migrating_twice_changes_nothing(adapter):
    assert adapter.pending_migrations() == adapter.migrate() == [step.name for step in STEPS]
    assert adapter.pending_migrations() == adapter.migrate() == []


def test_the_printed_sql_makes_the_same_tables(adapter, tmp_path):
    other = SQLAlchemyAdapter(f"sqlite:///{tmp_path}/printed.db")
    with sqlite3.connect(tmp_path / "printed.db") as connection:
        connection.executescript(other.migration_sql())
    connection.close()
    assert other.pending_migrations() == []
    adapter.migrate()

    def schema(path: Path) -> set:
        with sqlite3.connect(path) as connection:
            rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        connection.close()
        return {(kind, name, " ".join(sql.split()) if sql else None) for kind, name, sql in rows}

    assert schema(tmp_path / "printed.db") == schema(tmp_path / "jobs.db")
    other.close()


def test_tables_that_this_release_cannot_read_are_refused(adapter):
    adapter.migrate()
    with adapter._engine.begin() as connection:
        connection.execute(text("UPDATE background_meta SET value = '99' WHERE key = 'oldest_reader'"))
    adapter.close()
    with pytest.raises(SchemaTooNew, match="99"):
        adapter.enqueue([DRAFT])


def test_tables_that_a_later_release_only_added_to_are_used(adapter):
    adapter.migrate()
    with adapter._engine.begin() as connection:
        connection.execute(text("UPDATE background_meta SET value = '99' WHERE key = 'schema_version'"))
        connection.execute(text("ALTER TABLE background_jobs ADD COLUMN tomorrow TEXT"))
    adapter.close()
    adapter.enqueue([DRAFT])
    adapter.register(worker_record("w"))
    (record,) = adapter.claim("w", limit=1).claimed
    assert adapter.settle("w", [Settlement(record, Succeeded())]) == {record.id}


# --- life and death ---------------------------------------------------------------------------------------------------


def child(database: str, code: str) -> subprocess.Popen:
    """Start a process that registers a worker ``w``, runs ``code``, says "ready" and waits."""
    program = f"""
        import sys
        from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
        from sapwood.record import WorkerRecord
        adapter = SQLAlchemyAdapter({database!r})
        adapter.register(WorkerRecord(id="w", host="h", pid=1, queues=None, concurrency=1, release="0"))
    """
    waiting = 'print("ready", flush=True)\nsys.stdin.read()\n'
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program) + textwrap.dedent(code) + waiting],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize("named", ["../precious", "{folder}/precious", "..", "."])
def test_a_row_cannot_name_a_file_to_be_touched(adapter, tmp_path, named):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    adapter.register(worker_record("w"))
    with adapter._writing() as connection:
        connection.execute(text("UPDATE background_workers SET id = :id"), {"id": named.format(folder=tmp_path)})
    (forged,) = adapter.workers()
    assert adapter.is_dead(forged) is True, "nobody lives under such a name"
    assert adapter.notes(forged) is None
    adapter.pardon(forged.id)
    assert adapter.rescue(forged.id) == []
    assert adapter.workers() == []
    assert precious.read_text() == "kept"


def test_only_the_kernel_proves_a_death(adapter, database):
    with child(database, "") as process:
        assert process.stdout.readline() == b"ready\n"
        (worker,) = adapter.workers()
        assert adapter.is_dead(worker) is False
        process.kill()
        process.wait()
        assert adapter.is_dead(worker) is True
    (adapter._dialect._folder / "w").unlink()
    assert adapter.is_dead(worker) is None, "without its file only the beat can tell"


def test_a_frozen_worker_is_not_dead(adapter, database):
    with child(database, "") as process:
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, 19)
        assert adapter.is_dead(adapter.workers()[0]) is False
        process.kill()


def test_asking_about_a_worker_of_the_same_process_keeps_its_lock(adapter, database):
    adapter.register(worker_record("w"))
    twin = SQLAlchemyAdapter(database)
    assert twin.is_dead(twin.workers()[0]) is False
    with child(database.replace("jobs.db", "other.db"), "") as other:
        other.stdout.readline()
        asked = f"""
            import sys
            from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
            adapter = SQLAlchemyAdapter({database!r})
            print(adapter.is_dead(adapter.workers()[0]))
        """
        answer = subprocess.check_output([sys.executable, "-c", textwrap.dedent(asked)], text=True)
        other.kill()
    assert answer == "False\n"
    twin.close()


def test_the_notes_of_a_killed_worker_are_read(adapter, database):
    adapter.enqueue([DRAFT] * 4)
    code = """
        claimed = adapter.claim("w", limit=4).claimed
        page = adapter.page("w", slots=8)
        for record in claimed[:3]:
            page.start((record.id, record.lock_token))
        page.end((claimed[1].id, claimed[1].lock_token), well=True)
        page.end((claimed[2].id, claimed[2].lock_token), well=False)
    """
    with child(database, code) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        process.wait()
    (worker,) = adapter.workers()
    notes = adapter.notes(worker)
    assert [notes.get((job.id, job.lock_token)) for job in adapter.jobs()] == [
        Trace.STARTED,
        Trace.ENDED_WELL,
        Trace.ENDED_BADLY,
        None,
    ]
    left = adapter.rescue("w", notes=notes)
    assert [(job.state, job.attempts, job.deaths) for job in left] == [
        (JobState.READY, 1, 1),
        (JobState.READY, 0, 0),
        (JobState.READY, 1, 0),
        (JobState.READY, 0, 0),
    ]
    assert not (adapter._dialect._folder / "w").exists()


def test_writers_take_turns(database, tmp_path):
    writers = 4
    program = f"""
        import sys, time
        from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
        adapter = SQLAlchemyAdapter({database!r}, durability="normal")
        adapter.migrate()
        print("ready", flush=True)
        sys.stdin.readline()
        end, done = time.monotonic() + 1.5, 0
        while time.monotonic() < end:
            with adapter._dialect.writing(adapter._engine) as connection:
                hold = time.perf_counter() + 0.002
                while time.perf_counter() < hold:
                    pass
            done += 1
        print(done)
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(writers)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    shares = [0] * writers
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for number, process in enumerate(processes):
        shares[number] = int(process.communicate()[0])
    assert min(shares) >= 0.3 * (sum(shares) / writers), shares


def test_a_commit_of_another_process_wakes_a_listener(adapter, database):
    woken = threading.Event()
    adapter.migrate()
    end = adapter.listen(woken.set)
    assert woken.wait(5), "the first look"
    woken.clear()
    program = """
import sys
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.record import JobDraft
SQLAlchemyAdapter(sys.argv[1]).enqueue([JobDraft(job="m:J", args="{}")])
"""
    subprocess.run([sys.executable, "-c", program, database], check=True)
    assert woken.wait(5)
    end()


def test_a_forked_child_uses_connections_of_its_own(adapter):
    adapter.enqueue([DRAFT])
    mine = adapter._engine
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        adapter.enqueue([DRAFT])
        os.write(writer, b"own" if adapter._engine is not mine else b"shared")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"own"
    os.close(reader)
    os.close(writer)
    assert len(adapter.jobs()) == 2


def test_a_child_that_outlives_a_killed_writer_holds_nobody_up(adapter, database):
    code = """
        import os
        other = SQLAlchemyAdapter(adapter.address()["database"] + "-too")
        other.migrate()
        turns = [each._dialect._ticket.held() for each in (adapter, other)]
        for turn in turns:
            turn.__enter__()
        forked = os.fork()
        if forked == 0:
            sys.stdin.read()
            os._exit(0)
        print(forked, flush=True)
    """
    with child(database, code) as process:
        forked = int(process.stdout.readline())
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        process.wait()
        began = time.monotonic()
        adapter.enqueue([DRAFT])
        SQLAlchemyAdapter(f"{database}-too").enqueue([DRAFT])
        assert time.monotonic() - began < 5, "it does not wait until its patience ends"
        os.kill(forked, 9)


def test_one_file_has_one_folder_of_locks_whatever_it_is_called(adapter, tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "jobs.db")
    adapter.register(worker_record("w"))
    other = SQLAlchemyAdapter(f"sqlite:///{tmp_path}/link.db")
    assert other.is_dead(other.workers()[0]) is False
    other.close()


def test_instants_come_back_as_they_went_in(adapter):
    moment = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    zone = moment.astimezone().tzinfo
    (job_id,) = adapter.enqueue([JobDraft(job="m:J", args="{}", run_at=moment.astimezone(zone))], now=NOW)
    assert adapter.get(job_id).run_at == moment
    assert adapter.next_run_at() == moment
    assert adapter.promote(now=moment - timedelta(microseconds=1)) == 0
    assert adapter.promote(now=moment) == 1
