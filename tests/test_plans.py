"""What a claim and a promotion read on a server: rows, counted by the server itself, not seconds."""

import contextlib
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, inspect

from conftest import worker_record
from filling import engine_for, fill
from plugin_servers import server
from sapwood.adapters.dialects import postgresql
from sapwood.adapters.migrations import STEPS
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.record import JobDraft

DRAFT = JobDraft(job="m:J", args="{}")
LIMIT = 100
QUEUES = [f"q{number}" for number in range(100)]
BEFORE, DUE = datetime(2030, 1, 1, tzinfo=UTC), datetime(2041, 1, 1, tzinfo=UTC)

AGAIN = {"postgresql": 0, "mysql": 2}
"""How often each row is read again beyond that: MariaDB locks and writes what it found by statements of their own."""

READY = {
    "postgresql": "'q' || (n % 100), 1 + n % 97, 'ready', '2029-01-01'",
    "mysql": "concat('q', n % 100), 1 + n % 97, 'ready', '2029-01-01'",
}
SCHEDULED = "'later', 1 + n % 100, 'scheduled', '2040-01-01'"


@pytest.fixture(
    scope="module",
    # Once filled, each serves all tests of its kind: in one process.
    params=[pytest.param(kind, marks=pytest.mark.xdist_group(f"plans of {kind}")) for kind in ("postgresql", "mysql")],
)
def filled(request):
    """A million ready rows in a hundred queues, and a million over a hundred priorities that are due in 2040."""
    on = server(request.param)
    url = on.new_database()
    adapter = SQLAlchemyAdapter(url)
    adapter.migrate()
    adapter.register(worker_record("w"))
    fill(adapter, READY[request.param], SCHEDULED)
    adapter.claim("w", limit=1)
    yield adapter
    adapter.close()
    on.drop_database(url)


def again(adapter):
    return AGAIN["postgresql" if "postgresql" in adapter._dialect.names else "mysql"]


@contextlib.contextmanager
def counting(adapter):
    """Count the rows that the adapter reads of its jobs, and the sorts that it has made, as the server tells them."""
    found = Counter()
    count = _count_by_plan if "postgresql" in adapter._dialect.names else _count_by_status
    with count(adapter, found):
        yield found


@contextlib.contextmanager
def _count_by_plan(adapter, found):
    """Have each statement explained while it is carried out."""

    def explain(connection, cursor, statement, parameters, context, executemany):
        if statement.lstrip().startswith(("SELECT", "WITH", "UPDATE")):
            connection.connection.driver_connection.execute("SAVEPOINT before")
            explained = connection.connection.driver_connection.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters
            )
            plan = explained.fetchone()[0][0]["Plan"]
            found["buffers"] += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            _count_node(plan, found)
            connection.connection.driver_connection.execute("ROLLBACK TO before")

    event.listen(adapter._engine, "before_cursor_execute", explain)
    yield
    event.remove(adapter._engine, "before_cursor_execute", explain)


def _count_node(node, found):
    if node.get("Relation Name") == "background_jobs" and "Scan" in node["Node Type"]:
        passed = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        found["rows"] += round(passed * node["Actual Loops"])
    found["sorts"] += node["Node Type"] in {"Sort", "Incremental Sort"}
    for part in node.get("Plans", ()):
        _count_node(part, found)


@contextlib.contextmanager
def _count_by_status(adapter, found):
    """Read the session's own counters before and after each statement."""

    def read(connection):
        with connection.connection.driver_connection.cursor() as other:
            other.execute("SHOW SESSION STATUS WHERE Variable_name LIKE 'Handler_read%' OR Variable_name = 'Sort_rows'")
            counters = {name: int(value) for name, value in other.fetchall()}
        return counters.pop("Sort_rows"), sum(counters.values())

    def before(connection, cursor, statement, parameters, context, executemany):
        context.sorted_before, context.read_before = read(connection)

    def after(connection, cursor, statement, parameters, context, executemany):
        if "background_jobs" not in statement:
            return
        sorts, rows = read(connection)
        found["rows"] += rows - context.read_before
        found["sorts"] += sorts - context.sorted_before

    event.listen(adapter._engine, "before_cursor_execute", before)
    event.listen(adapter._engine, "after_cursor_execute", after)
    yield
    event.remove(adapter._engine, "before_cursor_execute", before)
    event.remove(adapter._engine, "after_cursor_execute", after)


@pytest.fixture(params=["as they were when the table was empty", "as they are now"])
def statistics(request, filled):
    """Whatever the planner thinks of the table."""
    with engine_for(filled).begin() as connection:
        if request.param == "as they are now":
            connection.exec_driver_sql(
                "ANALYZE background_jobs"
                if connection.dialect.name == "postgresql"
                else "ANALYZE TABLE background_jobs"
            )
        elif connection.dialect.name == "postgresql":
            connection.exec_driver_sql("DELETE FROM pg_statistic WHERE starelid = 'background_jobs'::regclass")
            connection.exec_driver_sql("UPDATE pg_class SET reltuples = 0, relpages = 1 WHERE relname LIKE '%%jobs%%'")


@pytest.mark.usefixtures("statistics")
@pytest.mark.parametrize("queues", [None, QUEUES, QUEUES[:2], QUEUES[:1]], ids=["all queues", "100", "two", "one"])
def test_a_claim_of_a_million_sorts_nothing_and_reads_little(filled, queues):
    with counting(filled) as found:
        taken = filled.claim("w", queues=queues, limit=LIMIT, now=BEFORE).claimed
    assert len(taken) == LIMIT
    assert found["sorts"] == 0
    assert found["rows"] - again(filled) * LIMIT <= 3 * LIMIT + len(queues or QUEUES)


def test_a_million_future_jobs_are_not_stepped_over(filled):
    with counting(filled) as found:
        taken = filled.claim("w", queues=["later"], limit=LIMIT, now=BEFORE).claimed
        assert filled.promote(now=BEFORE) == 0
    assert found["rows"] <= 110 + 5 * len(taken), "one per priority"


@pytest.mark.usefixtures("statistics")
def test_each_chunk_of_a_million_due_jobs_is_promoted_by_reading_little(filled):
    for _ in range(3):
        with counting(filled) as found:
            assert filled.promote(limit=1000, now=DUE) == 1000
        assert found["sorts"] == 0
        assert found["rows"] - again(filled) * 1000 <= 3 * 1000 + 100


# --- what others hold -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["postgresql", "mysql"])
def held(request, database_url):
    """An adapter, and a way to hold the first rows in another transaction."""
    adapter = SQLAlchemyAdapter(database_url(request.param))
    adapter.migrate()
    adapter.register(worker_record("w"))
    with engine_for(adapter).connect().execution_options(isolation_level="READ COMMITTED") as other:

        def hold(count):
            other.exec_driver_sql(f"SELECT id FROM background_jobs WHERE id <= {count} FOR UPDATE").all()

        yield adapter, hold
    adapter.close()


@pytest.mark.parametrize("queues", [None, ["a"], ["a", "b"]], ids=["all queues", "one", "two"])
@pytest.mark.parametrize("limit", [1, 10, 1000])
def test_jobs_that_others_hold_do_not_hide_the_rest(held, queues, limit):
    adapter, hold = held
    adapter.enqueue([JobDraft(job="m:J", args="{}", queue="ab"[n % 2 if queues != ["a"] else 0]) for n in range(200)])
    hold(60)
    taken = adapter.claim("w", queues=queues, limit=limit).claimed
    assert [record.id for record in taken] == list(range(61, 61 + min(limit, 140)))


def test_due_jobs_that_others_hold_do_not_hide_the_rest(held):
    adapter, hold = held
    adapter.enqueue([JobDraft(job="m:J", args="{}", run_at=DUE, priority=1 + n // 50) for n in range(200)])
    hold(60)
    assert [adapter.promote(limit=10, now=DUE), adapter.promote(now=DUE)] == [10, 130]


# --- what nobody can remove -------------------------------------------------------------------------------------------


@pytest.fixture
def swollen(database_url):
    """An adapter whose jobs table holds 200,000 dead rows that an old snapshot keeps; and what a claim cost before."""
    adapter = SQLAlchemyAdapter(database_url("postgresql"))
    adapter.migrate()
    adapter.register(worker_record("w"))
    adapter.enqueue([DRAFT] * 10)
    with counting(adapter) as before:
        assert len(adapter.claim("w", limit=10).claimed) == 10
    fill(adapter, "'default', 41 + n % 10, 'ready', '2020-01-01'", count=200_000)
    engine = engine_for(adapter)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as old, engine.connect() as other:
        old.exec_driver_sql("SELECT 1 FROM background_jobs LIMIT 1")
        other.exec_driver_sql("DELETE FROM background_jobs")
        other.commit()
        other.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        other.commit()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as third:
            third.exec_driver_sql("VACUUM background_jobs")
        yield adapter, before["buffers"]
    adapter.close()


@pytest.mark.parametrize("queues", [None, ["default"], ["default", "other"]], ids=["all queues", "one", "two"])
@pytest.mark.parametrize("limit", [10, 20], ids=["as many as there are", "more than there are"])
def test_dead_rows_that_an_old_snapshot_keeps_are_stepped_over_once(swollen, queues, limit):
    adapter, before = swollen
    costs = []
    for draft in (DRAFT, DRAFT, JobDraft(job="m:J", args="{}", priority=1), DRAFT):
        adapter.enqueue([draft] * 10)
        with counting(adapter) as found:
            assert len(adapter.claim("w", queues=queues, limit=limit).claimed) == 10
        costs.append(found["buffers"])
    assert costs[0] > 20 * before
    assert max(costs[1:]) <= 4 * before


@pytest.fixture
def marked(monkeypatch, postgresql_url):
    """Two adapters, as two processes have them, that remember where nothing is ready; and the clock they forget by."""
    now = [0.0]
    monkeypatch.setattr(postgresql, "_MANY_DEAD", 0)
    monkeypatch.setattr(postgresql, "monotonic", lambda: now[0])
    here, there = SQLAlchemyAdapter(postgresql_url), SQLAlchemyAdapter(postgresql_url)
    here.migrate()
    here.register(worker_record("w"))
    yield here, there, now
    here.close()
    there.close()


@pytest.mark.parametrize("queues", [None, ["default"], ["default", "other"]], ids=["all queues", "one", "two"])
def test_what_comes_in_time_is_seen_at_once_and_what_comes_late_two_seconds_later(marked, queues):
    here, there, now = marked

    def claim():
        return [record.id for record in here.claim("w", queues=queues, limit=2).claimed]

    assert claim() == []
    low, urgent = there.enqueue([DRAFT, JobDraft(job="m:J", args="{}", priority=1)])
    assert claim() == [urgent, low], "seen by a claim that remembers"
    (late,) = there.enqueue([JobDraft(job="m:J", args="{}", run_at=datetime(2020, 1, 1, tzinfo=UTC))])
    (recent,) = there.enqueue([DRAFT])
    assert claim() == [recent]
    now[0] += 2
    assert claim() == [late]


def test_a_claim_begins_where_the_last_one_ended(marked):
    here, there, _ = marked
    ids = there.enqueue([JobDraft(job="m:J", args="{}", priority=1 + n // 4) for n in range(12)])
    claimed = [[record.id for record in here.claim("w", limit=5).claimed] for _ in range(3)]
    assert claimed == [list(ids[:5]), list(ids[5:10]), list(ids[10:])]


def test_what_this_process_makes_ready_late_is_seen_at_once(marked):
    here, _, _ = marked
    (late,) = here.enqueue([JobDraft(job="m:J", args="{}", run_at=datetime(2020, 1, 1, tzinfo=UTC))])
    assert [record.id for record in here.claim("w", limit=2).claimed] == [late]
    here.release("w")
    assert [record.id for record in here.claim("w", limit=2).claimed] == [late]


# --- many queues ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_jobs_of_many_queues_come_in_order_whatever_lies_where(held, seed):
    adapter, _ = held
    rng = random.Random(seed)
    names = [f"q{number}" for number in range(40)]
    drafts = [
        JobDraft(
            job="m:J",
            args="{}",
            queue=names[min(int(rng.expovariate(0.1)), 39)],
            priority=rng.choice([1, 50, 50, 100]),
            run_at=BEFORE - timedelta(seconds=rng.randrange(100)),
        )
        for _ in range(1000)
    ]
    stored = zip(adapter.enqueue(drafts, now=BEFORE), drafts, strict=True)
    expected = [job for job, _ in sorted(stored, key=lambda one: (one[1].priority, one[1].run_at, one[0]))]
    claimed = []
    while taken := adapter.claim("w", queues=names, limit=rng.choice([7, 40, 130]), now=BEFORE).claimed:
        claimed.extend(record.id for record in taken)
    assert claimed == expected


# --- tables of an earlier release -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_tables_of_an_earlier_release_are_brought_to_the_same(kind, database_url):
    adapter = SQLAlchemyAdapter(database_url(kind))
    adapter.migrate()
    with engine_for(adapter).begin() as connection:
        fresh = storage(connection)
        on = " ON background_jobs" if kind == "mysql" else ""
        connection.exec_driver_sql(f"DROP INDEX background_jobs_urgent_idx{on}")
        if kind == "postgresql":
            connection.exec_driver_sql("ALTER TABLE background_jobs RESET (autovacuum_vacuum_scale_factor)")
            connection.exec_driver_sql("ALTER TABLE background_workers RESET (fillfactor)")
        connection.exec_driver_sql(f"UPDATE background_meta SET value = '2' WHERE value = '{len(STEPS)}'")
    assert [step[0] for step in adapter.migrate()] == [str(number + 1) for number in range(2, len(STEPS))]
    with engine_for(adapter).begin() as connection:
        assert storage(connection) == fresh
    adapter.close()


def storage(connection):
    """Return the indexes of the jobs, and what the server was told of how to keep the tables."""
    indexes = {index["name"] for index in inspect(connection).get_indexes("background_jobs")}
    assert "background_jobs_urgent_idx" in indexes
    if connection.dialect.name != "postgresql":
        return indexes, {}
    told = connection.exec_driver_sql("SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL")
    options = {name: sorted(each) for name, each in told if name.startswith("background_")}
    assert "fillfactor=50" in options["background_workers"]
    assert "autovacuum_vacuum_scale_factor=0.01" in options["background_jobs"]
    return indexes, options


def test_the_printed_statements_tell_postgresql_how_to_keep_the_tables(postgresql_url):
    adapter = SQLAlchemyAdapter(postgresql_url)
    with engine_for(adapter).begin() as connection:
        for statement in adapter.migration_sql().split(";\n")[:-1]:
            connection.exec_driver_sql(statement)
        storage(connection)
    assert adapter.pending_migrations() == []
    adapter.close()
