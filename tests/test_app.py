"""The app: what it declares, which one is current, and transactions that jobs join."""

import asyncio
import logging
import sys

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from sapwood import Job, MemoryAdapter, Sapwood, SQLAlchemyAdapter, WorkerGroup, enqueue_all
from sapwood.app import current_app
from sapwood.errors import (
    ConfigurationError,
    NoApp,
    UnknownAdapter,
    UnknownQueue,
    UnsupportedConnection,
)
from sapwood.events import JobsEnqueued


class Work(Job, name="app.work"):
    def perform(self, n: int = 0) -> None: ...


class Audit(Job, name="app.audit", adapter="audit"):
    def perform(self) -> None: ...


@pytest.fixture
def app(database):
    app = Sapwood(adapters={"default": database, "audit": MemoryAdapter()})
    app.migrate()
    yield app
    app.close()


@pytest.fixture
def engine(database):
    engine = create_engine(database)
    yield engine
    engine.dispose()


def stored(app: Sapwood, adapter: str = "default") -> list[str]:
    return [record.job for record in app.adapter(adapter).jobs()]


# --- what is declared ---


def test_a_url_an_engine_and_an_adapter_are_places_for_jobs(database, engine):
    memory = MemoryAdapter()
    assert Sapwood(memory).adapter() is memory
    app = Sapwood(adapters={"default": database, "engine": engine, "memory": memory})
    assert list(app.adapters) == ["default", "engine", "memory"]
    assert isinstance(app.adapter(), SQLAlchemyAdapter)
    assert isinstance(app.adapter("engine"), SQLAlchemyAdapter)


def test_nothing_is_opened_at_construction(tmp_path):
    Sapwood(f"sqlite:///{tmp_path}/not/there/jobs.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "declaration",
    [
        Sapwood,
        lambda: Sapwood(MemoryAdapter(), adapters={"default": MemoryAdapter()}),
        lambda: Sapwood(adapters={}),
        lambda: Sapwood(7),
        lambda: Sapwood(object()),
        lambda: Sapwood("no url at all"),
        lambda: Sapwood(MemoryAdapter(), queues="email"),
        lambda: Sapwood(MemoryAdapter(), queues=["email", 7]),
        lambda: Sapwood(MemoryAdapter(), imports="shop.jobs"),
        lambda: WorkerGroup(count=0),
        lambda: WorkerGroup(count=True),
        lambda: WorkerGroup(concurrency=0),
        lambda: WorkerGroup(concurrency=1.5),
        lambda: WorkerGroup(queues=[]),
        lambda: WorkerGroup(queues="email"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(declaration):
    with pytest.raises(ConfigurationError):
        declaration()


def test_a_group_of_an_unknown_queue_is_refused_with_what_may_have_been_meant():
    with pytest.raises(UnknownQueue, match="did you mean 'email'"):
        Sapwood(MemoryAdapter(), queues=["default", "email"], workers=[WorkerGroup(queues=["emial"])])


def test_a_group_of_an_unknown_adapter_is_refused():
    with pytest.raises(UnknownAdapter, match="'audti'"):
        Sapwood(adapters={"audit": MemoryAdapter()}, workers=[WorkerGroup(adapter="audti")])


def test_without_groups_there_is_one_worker_per_adapter(app):
    assert app.workers == (WorkerGroup(adapter="default"), WorkerGroup(adapter="audit"))


def test_an_unknown_adapter_is_refused_with_what_may_have_been_meant(app):
    with pytest.raises(UnknownAdapter, match="did you mean 'audit'"):
        app.adapter("adit")


def test_migrate_tells_the_steps_of_each_adapter(database):
    app = Sapwood(adapters={"default": database, "audit": MemoryAdapter()})
    assert app.migrate()["default"]
    again = app.migrate()
    assert (list(again), any(again.values())) == (["default", "audit"], False)
    app.close()


# --- which one is current ---


def test_the_app_made_last_is_the_current_one_and_the_change_is_logged(caplog):
    one = Sapwood(MemoryAdapter())
    assert current_app() is one
    with caplog.at_level(logging.INFO, "sapwood"):
        two = Sapwood(MemoryAdapter())
    assert current_app() is two
    assert "current app" in caplog.text


def test_a_class_may_belong_to_another_app_than_the_current_one():
    one = Sapwood(MemoryAdapter())

    class Mine(Job, name="app.mine", app=one):
        def perform(self) -> None: ...

    two = Sapwood(MemoryAdapter())
    Mine.perform_later()
    Work.perform_later()
    enqueue_all([Mine.build(), Work.build()])
    assert stored(one) == ["app.mine"] * 2
    assert stored(two) == ["app.work"] * 2


def test_without_an_app_there_is_nowhere_to_go(monkeypatch):
    monkeypatch.setattr("sapwood.app._current", None)
    with pytest.raises(NoApp, match="Sapwood"):
        Work.perform_later()
    assert Work.perform_now() is None


# --- loading ---


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with modules, one of them a program."""
    files = {"__init__": "", "mail": "", "deep/__init__": "", "deep/more": "", "__main__": "raise SystemExit('ran')"}
    for name, source in files.items():
        file = tmp_path / "shop_of_test" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "shop_of_test"
    for name in [name for name in sys.modules if name.startswith("shop_of_test")]:
        del sys.modules[name]


def test_loading_imports_a_package_with_all_its_modules_and_runs_none_of_its_programs(package):
    Sapwood(MemoryAdapter(), imports=["shop_of_test"]).load()
    assert {name for name in sys.modules if name.startswith("shop_of_test")} == {
        "shop_of_test",
        "shop_of_test.mail",
        "shop_of_test.deep",
        "shop_of_test.deep.more",
    }


@pytest.mark.parametrize("name", ["nowhere_to_be_found", "shop_of_test.nothing", "shop_of_test.mail.nothing"])
def test_a_module_that_is_not_there_is_an_error_with_a_remedy(package, name):
    with pytest.raises(ConfigurationError, match=name) as raised:
        Sapwood(MemoryAdapter(), imports=[name]).load()
    assert raised.value.mend


def test_what_a_module_raises_comes_through(package):
    (package / "mail.py").write_text("import something_not_installed")
    with pytest.raises(ModuleNotFoundError, match="something_not_installed"):
        Sapwood(MemoryAdapter(), imports=["shop_of_test"]).load()


# --- transactions ---


def test_every_job_inside_the_block_joins_the_transaction(app, engine):
    with Session(engine) as session:
        with app.transaction(session):
            Work.perform_later()
            Work.set(wait=60).perform_later()
            enqueue_all([Work.build(n) for n in range(2)])
        assert stored(app) == []
        session.commit()
    assert stored(app) == ["app.work"] * 4


def test_what_is_rolled_back_leaves_no_job(app, engine):
    with Session(engine) as session, app.transaction(session):
        Work.perform_later()
        session.rollback()
    assert stored(app) == []


def test_after_the_block_jobs_go_their_own_way(app, engine):
    with Session(engine) as session:
        with app.transaction(session):
            pass
        Work.perform_later()
        session.rollback()
    assert stored(app) == ["app.work"]


def test_jobs_of_another_adapter_or_app_do_not_join(app, engine):
    other = MemoryAdapter()
    with Session(engine) as session, app.transaction(session):
        Audit.perform_later()

        class Elsewhere(Job, name="app.elsewhere", app=Sapwood(other)):
            def perform(self) -> None: ...

        Elsewhere.perform_later()
        session.rollback()
    assert stored(app, "audit") == ["app.audit"]
    assert len(other.jobs()) == 1


def test_the_innermost_transaction_is_joined_and_an_explicit_connection_wins(app, engine):
    with engine.connect() as outer, app.transaction(outer):
        Work.perform_later(1)
        with Session(outer) as inner, app.transaction(inner):
            Work.perform_later(2)
            assert app.joined("default") is inner
        assert app.joined("default") is outer
        Work.set(connection=outer).perform_later(3)
        outer.commit()
    assert len(stored(app)) == 3


def test_an_error_in_the_block_ends_it(app, engine):
    with Session(engine) as session:
        with pytest.raises(ZeroDivisionError), app.transaction(session):
            raise ZeroDivisionError
        assert app.joined("default") is None


def test_a_transaction_of_an_unknown_adapter_is_refused(app, engine):
    with engine.connect() as connection, pytest.raises(UnknownAdapter), app.transaction(connection, adapter="nope"):
        pass


def test_a_place_that_cannot_join_says_so():
    app = Sapwood(MemoryAdapter())
    with app.transaction(object()), pytest.raises(UnsupportedConnection):
        Work.perform_later()


def test_an_async_session_is_joined_from_async_code_and_refused_in_sync_code(app, database):
    async def scenario() -> None:
        engine = create_async_engine(database.replace("sqlite:", "sqlite+aiosqlite:"))
        async with engine.connect() as connection:
            with app.transaction(connection):
                await Work.aperform_later(1)
                with pytest.raises(UnsupportedConnection, match="aperform_later"):
                    Work.perform_later(2)
            assert (await connection.execute(text("SELECT count(*) FROM background_jobs"))).scalar() == 1
            assert stored(app) == []
            await connection.commit()
        await engine.dispose()

    asyncio.run(scenario())
    assert stored(app) == ["app.work"]


def test_a_task_that_outlives_the_block_does_not_use_its_connection(app, engine):
    async def scenario() -> None:
        left = asyncio.Event()

        async def late() -> None:
            await left.wait()
            await Work.aperform_later()

        with Session(engine) as session:
            with app.transaction(session):
                task = asyncio.create_task(late())
                await asyncio.sleep(0)
            left.set()
            await task
            session.rollback()

    asyncio.run(scenario())
    assert stored(app) == ["app.work"]


def test_enqueuing_is_told(app):
    told = []
    app.events.listen(told.append)
    handle = Work.set(priority=3).perform_later(7)
    [event] = told
    assert isinstance(event, JobsEnqueued)
    assert (event.ids, event.drafts[0].priority) == ((handle.id,), 3)
