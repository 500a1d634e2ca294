"""A COMMIT whose answer is lost: whether it happened is asked of the row, and never guessed."""

import pytest
from sqlalchemy import text

from conftest import worker_record
from cutting import Cutting
from sapwood import Executor, Job, Sapwood, Worker
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import CommitUnknown
from sapwood.events import JobFenced, JobsReleased, StoreFailed
from sapwood.lifecycle import Released, Succeeded
from sapwood.record import JobState

SERVERS = ["postgresql", "mysql"]


class Cut(Job, name="unknown.cut", transactional=True):
    proxy: Cutting
    how: list[str]

    def perform(self) -> None:
        self.context.connection.execute(text("INSERT INTO effects VALUES (:id)"), {"id": self.context.job_id})
        Cut.proxy.cut = Cut.how.pop() if Cut.how else None


class Behind:
    """An app behind a network that cuts, and a look at the database from the other side."""

    def __init__(self, url: str) -> None:
        self.proxy = Cut.proxy = Cutting(url)
        self.direct = SQLAlchemyAdapter(url)
        self.direct.migrate()
        with self.direct._writing() as connection:
            connection.execute(text("CREATE TABLE effects (number INTEGER)"))
        self.app = Sapwood(self.proxy.url)
        self.events: list[object] = []
        self.app.events.listen(self.events.append)

    def effects(self) -> list[int]:
        with self.direct._reading() as connection:
            return list(connection.scalars(text("SELECT number FROM effects")))

    def heard(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def close(self) -> None:
        self.app.close()
        self.proxy.close()
        self.direct.close()


@pytest.fixture(params=SERVERS)
def behind(request, database_url):
    behind = Behind(database_url(request.param))
    yield behind
    behind.close()


def claimed(adapter):
    adapter.register(worker_record("w"))
    (record,) = adapter.claim("w", limit=1).claimed
    return record


def test_one_that_never_arrived_is_given_back(behind):
    Cut.how = ["lost"]
    Cut.perform_later()
    record = claimed(behind.app.adapter())
    assert Executor(behind.app).execute(record) == Released(written=True)
    left = behind.direct.get(record.id)
    assert (left.state, left.attempts, behind.effects()) == (JobState.READY, 0, [])
    assert [event.records[0].id for event in behind.heard(JobsReleased)] == [record.id]
    assert next(event.doing for event in behind.heard(StoreFailed)) == "commit"


@pytest.mark.parametrize("how", ["done", "late"])
def test_one_that_arrived_has_happened(behind, how):
    Cut.how = [how]
    Cut.perform_later()
    record = claimed(behind.app.adapter())
    assert Executor(behind.app).execute(record) == Succeeded(written=True)
    assert behind.direct.get(record.id) is None
    assert behind.effects() == [record.id]
    assert behind.proxy.cuts == 1
    assert not behind.heard(JobFenced)


@pytest.mark.parametrize("how", ["lost", "done"])
def test_a_worker_holds_the_claim_until_it_knows_and_counts_what_came_of_it(behind, how):
    Cut.how = [how]
    Cut.perform_later()
    (job,) = [record.id for record in behind.direct.jobs()]
    tally = Worker(behind.app, concurrency=1).workoff()
    assert (tally.succeeded, tally.retried, tally.failed) == (1, 0, 0)
    assert behind.effects() == [job], "once, by whichever run"
    assert behind.direct.counts() == {}
    assert not behind.direct.attempts(job), "no try was spent"


def test_one_that_somebody_else_was_given_meanwhile_is_told_as_fenced(behind, monkeypatch):
    Cut.how = ["lost"]
    Cut.perform_later()
    adapter = behind.app.adapter()
    record = claimed(adapter)
    settle = adapter.settle

    def rescued_before(*arguments, **options):
        behind.direct.rescue("w", notes={})
        return settle(*arguments, **options)

    monkeypatch.setattr(adapter, "settle", rescued_before)
    assert Executor(behind.app).execute(record) == Released(written=True)
    assert [event.record.id for event in behind.heard(JobFenced)] == [record.id]
    assert behind.effects() == []


def test_the_row_is_asked_again_until_the_store_answers(behind, monkeypatch):
    Cut.how = ["done"]
    Cut.perform_later()
    adapter = behind.app.adapter()
    record = claimed(adapter)
    settle, asked = adapter.settle, []

    def cut_off_at_first(*arguments, **options):
        asked.append(arguments)
        if len(asked) < 3:
            behind.proxy.cut = "lost"
        return settle(*arguments, **options)

    monkeypatch.setattr(adapter, "settle", cut_off_at_first)
    assert Executor(behind.app).execute(record) == Succeeded(written=True)
    assert (len(asked), behind.effects()) == (3, [record.id])


def test_inline_nobody_can_tell_and_the_caller_hears_so(behind):
    Cut.how = ["done"]
    with pytest.raises(CommitUnknown, match="not answered"):
        Cut.perform_now()
    assert behind.effects() == [0]
