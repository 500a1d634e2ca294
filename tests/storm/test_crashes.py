"""Database servers that crash under load: workers wait, or are fenced, and everything goes on by itself.

The sabotages: a build that ends workers and takes that for their deaths, and one that runs a job again where its
outcome could not be written.
"""

import time

import pytest
from claims import RUN, RUNS_AGAIN

import plugin_servers
from background import Project, wait_until

pytestmark = pytest.mark.timeout(7200)

WORKERS = 2
CONCURRENCY = 5
JOBS = 200
MARGIN = 0.5
"""An outcome may be on its way for so long when the server crashes."""

NO_PARDON = """
from sapwood import processes

processes.pardon = lambda fd: None

from sapwood.page import Page

Page.pardon = lambda self: None
"""


@pytest.fixture(params=["postgresql", "mysql"])
def server(request):
    """A server that can be crashed."""
    return plugin_servers.server(request.param)


class Crashes:
    """Crashes a server under load, and keeps a book of the outages."""

    def __init__(self, folder, server, size, chance, *, more=RUN, sabotage=""):
        self.server, self.size, self.chance = server, size, chance
        self.url = server.new_database()
        self.project = Project(folder, self.url, scale=size.scale, more=more)
        environ = self.project.sabotage(sabotage) if sabotage else {}
        self.project.start("-n", str(WORKERS), "-c", str(CONCURRENCY), **environ)
        self.supervisor = self.project.supervisor()
        self.enqueued = self.fenced = 0
        self.outages = []
        self.back = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.project.end()
        self.server.drop_database(self.url)

    def crash(self, *, seconds):
        """Crash the server while jobs run, and start it again after a while, or once the workers have ended."""
        project = self.project
        numbers = range(self.enqueued, self.enqueued + JOBS)
        # A single try: who spends it without a run that failed has lost the job.
        # The first still run when a fence acts.
        project.enqueue("run", *numbers[:2], max_attempts=1, seconds=60 * self.size.scale)
        project.enqueue("run", *numbers[2 : JOBS // 2], max_attempts=1, seconds=0.02)
        project.enqueue("run", *numbers[JOBS // 2 :], max_attempts=1)
        self.enqueued += JOBS
        mark = project.counted("begun") + self.chance.randrange(JOBS // 2)
        wait_until(lambda: project.counted("begun") >= mark, seconds=60, pause=0.005)
        pids = {worker.pid for worker in project.workers()}
        crashed = time.monotonic()
        self.server.crash()
        # Its connections are lost; ours would say so once.
        project.adapter.close()
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() >= until, seconds=seconds + 60)
        begun = project.counted("begun")
        self.server.start()
        accepted = time.monotonic()
        self.outages.append((crashed - MARGIN, accepted + 10))
        wait_until(lambda: project.counted("begun") > begun or not project.states(), seconds=60, about="a claim")
        self.back.append(time.monotonic() - accepted)
        self.fenced += {worker.pid for worker in project.workers()} != pids

    def until_done(self):
        """Wait until nothing is left to do."""
        project = self.project
        wait_until(lambda: set(map(str, project.states())) <= {"failed"}, seconds=120, about="all to be done")

    def broken(self):
        """Return what should not be: jobs that failed or were lost, claims that ran twice, repeats out of season."""
        project = self.project
        wrong = [f"failed: {job.id}" for job in project.adapter.jobs(limit=1_000_000)]
        rows = project._effects.execute("SELECT number, attempt, what, at FROM effects ORDER BY at").fetchall()
        begun, done = {}, {}
        for number, token, what, at in rows:
            (begun if what == "begun" else done).setdefault(number, []).append((token, at))
        wrong += [f"lost: {number}" for number in set(range(self.enqueued)) - set(done)]
        for number, runs in begun.items():
            tokens = [token for token, _ in runs]
            if len(set(tokens)) < len(tokens):
                wrong.append(f"one claim ran twice: {number}")
            for _, at in done.get(number, [])[:-1]:
                if not any(begin <= at <= end for begin, end in self.outages):
                    wrong.append(f"done again though its outcome could be written: {number}")
        self.repeats = sum(len(runs) - 1 for runs in begun.values())
        return wrong


def _lasting(size, chance, number):
    """Every third outage is longer than the fence."""
    return 50 * size.scale if number % 3 == 2 else chance.uniform(0, 10 * size.scale)


def test_crashes_of_the_server_lose_nothing_and_spend_no_try(tmp_path, server, size, chance, capsys):
    crashes = 100 if size.scale == 1 else 5
    with Crashes(tmp_path, server, size, chance) as storm:
        for number in range(crashes):
            storm.crash(seconds=_lasting(size, chance, number))
        storm.until_done()
        assert storm.broken() == []
        assert storm.project.supervisor() == storm.supervisor
        assert storm.fenced > 0
        assert max(storm.back) <= 5 + (3 if size.scale < 1 else 0)
        done = storm.project.stop()
        assert done.returncode == 0, done.stderr
        assert storm.project.adapter.workers() == []
    with capsys.disabled():
        print(
            f"\n{server.name}: {crashes} crashes, {storm.enqueued} jobs with one try each, lost 0, failed 0, "
            f"{storm.fenced} times fenced, {storm.repeats} done again; first claim at most {max(storm.back):.2f} s "
            "after the server answered"
        )


@pytest.mark.parametrize(
    ("more", "sabotage"), [(RUN + RUNS_AGAIN, ""), (RUN, NO_PARDON)], ids=["runs again", "fenced are dead"]
)
def test_a_build_that_is_wrong_about_outages_is_found(tmp_path, size, chance, more, sabotage):
    server = plugin_servers.server("postgresql")
    with Crashes(tmp_path, server, size, chance, more=more, sabotage=sabotage) as storm:
        for number in range(2):
            storm.crash(seconds=_lasting(size, chance, 2 if sabotage else number))
        storm.until_done()
        assert storm.broken() != []
