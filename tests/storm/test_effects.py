"""Transactional jobs and jobs that run at most once, while workers and supervisors are killed at random."""

import json
from collections import Counter

import psutil
import pytest
from sqlalchemy import create_engine, text
from storms import STATES, Storm, kill

from background import wait_until
from sapwood.lifecycle import STARTED_ONCE
from sapwood.record import JobState

pytestmark = pytest.mark.timeout(1800)

JOBS = """
from sqlalchemy import text


class Transfer(Job, name="transfer", transactional=True):
    # Its effect is a row of the database that keeps the jobs; what it did outside says that it was tried.
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "tried")
        connection = self.context.connection
        connection.execute(text("INSERT INTO transfers VALUES (:number)"), {"number": number})
        if number % 3 == 0:
            time.sleep(random.random() * 0.01)
        connection.execute(text("INSERT INTO transfers VALUES (:number)"), {"number": -number})


class Once(Job, name="once", delivery="at_most_once"):
    def perform(self, number: int) -> None:
        note(number, self.context.attempt, "begun once")
        time.sleep(random.random() * 0.01)
"""

SETTLED_AFTERWARDS = """
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter

# The work is committed by itself, and the outcome goes its ordinary way.
SQLAlchemyAdapter._settle_within = lambda self, connection, record, outcome: True
sys.modules["sapwood.transacting"]._as_written = lambda outcome: outcome
"""

UNMARKED = """
from sapwood.pool import Pool

# It is begun without the mark.
Pool._marked = lambda self, record: (record, None)
"""


class Effects:
    """A storm of kills over such jobs."""

    def __init__(self, folder, url, size, chance, *, more: str = "") -> None:
        self.engine = create_engine(url)
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE transfers (number INTEGER)"))
        self.storm = Storm(folder, url, scale=size.scale, chance=chance, more=JOBS + more)
        self.project = self.storm.project
        self.chance = chance
        self.enqueued = 0
        self.kills = 0

    def add(self, count: int) -> None:
        numbers = range(self.enqueued + 1, self.enqueued + count + 1)
        self.project.enqueue("transfer", *numbers)
        self.project.enqueue("once", *numbers)
        self.enqueued += count

    def rage(self, kills: int, jobs: int) -> None:
        """Kill so many processes while so many jobs of each kind come, a part before each kill."""
        for _ in range(kills):
            self.add(jobs // kills)
            mark = self.project.counted("tried") + self.chance.randrange(1, max(2, jobs // kills))
            wait_until(lambda mark=mark: self.project.counted("tried") >= mark or self.is_done(), seconds=90)
            self._kill(self.chance.choice(STATES))
        wait_until(self.is_done, seconds=180, pause=0.1, about="the jobs to be done")

    def _kill(self, state: str) -> None:
        if self.chance.random() < 0.1:
            supervisor = psutil.Process(self.project.supervisor(state))
            workers = supervisor.children()
            kill(supervisor)
            psutil.wait_procs(workers, timeout=30)
            self.storm.start(state)
        else:
            workers = [worker for worker in self.project.workers(state) if worker.is_running()]
            if not workers:
                return
            kill(self.chance.choice(workers))
        self.kills += 1

    def is_done(self) -> bool:
        return {state for state in self.project.states() if state is not JobState.FAILED} == set()

    def transfers(self) -> Counter[int]:
        with self.engine.connect() as connection:
            return Counter(connection.scalars(text("SELECT number FROM transfers")))

    def failed(self, job: str) -> dict[int, str]:
        """Return the jobs of a kind that failed for good, with the reason."""
        left = self.project.adapter.jobs(limit=10_000)
        return {json.loads(record.args)["number"]: record.last_error for record in left if record.job == job}

    def begun(self) -> Counter[int]:
        return Counter(number for number, _, _ in self.project.effects("begun once"))

    def end(self) -> None:
        self.engine.dispose()
        self.project.end()


def _sizes(size):
    return (10, 500) if size.scale < 1 else (size.kills, size.jobs)


def test_a_storm_of_kills_leaves_every_transfer_made_once_and_nothing_begun_twice(tmp_path, url, size, chance, capsys):
    effects = Effects(tmp_path, url, size, chance)
    kills, jobs = _sizes(size)
    try:
        effects.rage(kills, jobs)
        transfers, begun = effects.transfers(), effects.begun()
        killers, once = effects.failed("transfer"), effects.failed("once")
        made = set(range(1, effects.enqueued + 1)) - set(killers)
        assert transfers == Counter(dict.fromkeys([*made, *(-number for number in made)], 1))
        assert max(begun.values()) == 1
        assert set(once.values()) <= {STARTED_ONCE}
        assert set(range(1, effects.enqueued + 1)) == set(begun) | set(once), (
            "what was not begun has failed, and says so"
        )
        assert len(killers) <= effects.kills, "three deaths"
        effects.storm.end()
        tried = effects.project.counted("tried")
    finally:
        effects.end()
    with capsys.disabled():
        print(
            f"\n{url.partition(':')[0]}: {effects.kills} kills, {effects.enqueued} transfers tried {tried} times, "
            f"lost 0, doubled 0, {len(killers)} killed three workers; of as many that run at most once "
            f"{sum(begun.values())} begun, none twice, {len(once)} cut short"
        )


def _is_doubled(tmp_path, database_url, size, chance, more, counted):
    """Say whether something that must happen once is seen to happen twice, by a build that is broken on purpose."""
    for number in range(3):
        effects = Effects(tmp_path / str(number), database_url("sqlite"), size, chance, more=more)
        try:
            effects.rage(8, 400)
            if any(count > 1 for count in counted(effects).values()):
                return True
        finally:
            effects.end()
    return False


def test_a_build_that_settles_outside_of_the_transaction_is_found(tmp_path, database_url, size, chance):
    assert _is_doubled(tmp_path, database_url, size, chance, SETTLED_AFTERWARDS, Effects.transfers), (
        "a job whose effect and outcome are apart was never seen to have two effects"
    )


def test_a_build_that_gives_back_what_had_begun_is_found(tmp_path, database_url, size, chance):
    assert _is_doubled(tmp_path, database_url, size, chance, UNMARKED, Effects.begun), (
        "a job that is begun without its mark was never seen to be begun twice"
    )
