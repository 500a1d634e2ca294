"""A network that cuts, stalls, delays and loses replies, between workers and a server: nothing lost, nothing twice.

The sabotages: a build that runs the job again where its outcome could not be written, and one that takes a lost reply
for a good one, must be found; so must a supervisor that waits for its server for ever.
"""

import time

import psutil
import pytest
from claims import RUN, RUNS_AGAIN
from proxy import Proxy

from background import Project, wait_until
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.record import JobState

pytestmark = pytest.mark.timeout(3600)

WORKERS = 2
CONCURRENCY = 5
JOBS = 24

TRUSTS_LOST_REPLIES = """
from sapwood.worker import Worker

# The wrong way: nobody asks what a claim whose reply was lost has come to.
Worker._resolve = lambda self: None
"""


@pytest.fixture(params=["postgresql", "mysql"])
def server_url(request, database_url):
    """An empty database of each server."""
    return database_url(request.param)


@pytest.fixture
def cuts(size):
    """How many faults of each kind there are."""
    return 200 if size.scale == 1 else 10


class Network:
    """A project whose workers reach their server through a proxy; the test itself reaches it directly."""

    def __init__(self, folder, url, size, *, more=RUN, start=True):
        self.proxy = Proxy(url)
        self.project = Project(folder, self.proxy.url, scale=size.scale, more=more)
        self.project.adapter.close()
        self.project.adapter = SQLAlchemyAdapter(url)
        self.enqueued = 0
        if start:
            self.project.start("-n", str(WORKERS), "-c", str(CONCURRENCY))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.project.end()
        self.proxy.close()

    def add(self, count, *, seconds=0.01):
        """Enqueue jobs, half of which take a moment; wait until the first of them runs."""
        numbers = range(self.enqueued, self.enqueued + count)
        mark = self.project.counted("begun")
        self.project.enqueue("run", *numbers[: count // 2], seconds=seconds)
        self.project.enqueue("run", *numbers[count // 2 :])
        self.enqueued += count
        wait_until(lambda: self.project.counted("begun") > mark, seconds=60, about="work to go on")

    def until_done(self, *, seconds=60):
        """Wait until no job is left: none running for nobody, none failed."""
        return wait_until(lambda: not self.project.states(), seconds=seconds, about=f"{self.project.states()}")

    def is_ready(self):
        """Say whether the supervisor has had a good beat after its last bad one."""
        return self.project.status()["supervisor"]["state"] == "ready"

    def pids(self):
        return {worker.pid for worker in self.project.workers()}

    def runs(self):
        """Return for each job the claims that ran, and the claims that ran more than once."""
        rows = self.project._effects.execute("SELECT number, attempt FROM effects WHERE what = 'begun'").fetchall()
        claims = {}
        for number, token in rows:
            claims.setdefault(number, []).append(token)
        twice = [number for number, tokens in claims.items() if len(tokens) != len(set(tokens))]
        return claims, twice


def _fault(network, chance, kind):
    """Have one fault, and its end."""
    proxy = network.proxy
    match kind:
        case "reset":
            wait_until(proxy.reset, about="a connection to cut")
        case "half-close":
            wait_until(proxy.half_close, about="a connection to cut")
        case "stall":
            proxy.stall()
            _pass(chance.uniform(0.1, 20 * network.project.scale))
        case "refuse":
            proxy.refuse()
            _pass(chance.uniform(0.1, 20 * network.project.scale))
        case "delay":
            proxy.delay(chance.uniform(0.01, 0.1))
            _pass(0.3)
        case "trickle":
            proxy.trickle()
            _pass(0.3)
        case "commit" | "torn commit":
            before = proxy.commits_cut
            proxy.cut_commits(1, torn=kind == "torn commit")
            network.add(10)
            wait_until(lambda: proxy.commits_cut > before, seconds=60, about="a commit to be cut")
    proxy.flow()


def _pass(seconds):
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, seconds=seconds + 60)


KINDS = ("reset", "half-close", "stall", "refuse", "delay", "trickle", "commit", "torn commit")


def test_no_fault_of_the_network_loses_a_job_or_has_it_done_twice(tmp_path, server_url, size, cuts, chance, capsys):
    with Network(tmp_path, server_url, size) as network:
        project = network.project
        pids, longest = network.pids(), 0.0
        faults = [kind for kind in KINDS for _ in range(cuts)]
        chance.shuffle(faults)
        for kind in faults:
            network.add(JOBS)
            _fault(network, chance, kind)
            healed, mark = time.monotonic(), project.counted("begun")
            project.enqueue("run", network.enqueued)
            network.enqueued += 1
            wait_until(lambda mark=mark: project.counted("begun") > mark, seconds=30, about=f"work after a {kind}")
            longest = max(longest, time.monotonic() - healed)
            # A good beat: else faults in a row are one that lasts longer than the fence.
            wait_until(network.is_ready, seconds=30, pause=0.05, about=f"a good beat after a {kind}")
        network.until_done()
        claims, twice = network.runs()
        assert set(claims) == set(range(network.enqueued)), "none lost"
        assert network.pids() == pids, "no worker had to end"
        assert twice == []
        assert {number for number, tokens in claims.items() if len(tokens) > 1} == set(), "none done again"
        assert longest <= 5 + (5 if size.scale < 1 else 0)
        assert project.stop().returncode == 0
        assert project.adapter.workers() == []
    with capsys.disabled():
        print(
            f"\n{server_url.partition(':')[0]}: {len(faults)} faults of {len(KINDS)} kinds, {network.enqueued} jobs, "
            f"lost 0, done again 0; {network.proxy.commits_cut} commits whose reply was lost; "
            f"longest until work went on {longest:.2f} s"
        )


@pytest.mark.parametrize(
    "more", [RUN + RUNS_AGAIN, RUN + TRUSTS_LOST_REPLIES], ids=["runs again", "trusts lost replies"]
)
def test_a_build_that_does_not_keep_and_resolve_is_found(tmp_path, database_url, size, chance, more):
    with Network(tmp_path, database_url("postgresql"), size, more=more) as network:
        project = network.project
        for _ in range(10):
            network.add(JOBS)
            _fault(network, chance, chance.choice(["commit", "commit", "refuse"]))
            _, twice = network.runs()
            if twice:
                return
        # What was claimed in an answer that never came runs for nobody, as long as its worker lives.
        _pass(1)
        stuck = project.states()
        _, twice = network.runs()
        assert twice or stuck == {JobState.RUNNING: stuck.get(JobState.RUNNING, 0)} != {}


def test_a_supervisor_that_is_cut_off_ends_its_workers_before_others_take_their_jobs(
    tmp_path, server_url, size, capsys
):
    with Network(tmp_path, server_url, size) as network:
        project = network.project
        jobs = project.enqueue("gate", *range(WORKERS))
        wait_until(lambda: project.counted("begun") == WORKERS, seconds=60, about="gates to be entered")
        workers = project.workers()
        network.proxy.stall()
        cut = time.monotonic()
        _, alive = psutil.wait_procs(workers, timeout=120)
        fenced = time.monotonic() - cut
        assert alive == []
        # None was taken before: nobody else is there, and nothing reaches the server.
        assert {project.adapter.get(job).lock_token for job in jobs} == {1}
        assert fenced <= (40 + 10) * size.scale + (5 if size.scale < 1 else 2)
        network.proxy.reset()
        network.proxy.flow()
        project.let_gates_open()
        back = network.until_done(seconds=120 * size.scale + 60)
        again = project.effects("begun")
        assert {attempt for _, attempt, _ in again} == {1}, "no try is spent, and no death counted"
        assert len(project.effects()) == WORKERS
        assert project.stop().returncode == 0
    with capsys.disabled():
        print(f"\n{server_url.partition(':')[0]}: fenced {fenced:.2f} s after the cut, done {back:.2f} s after its end")


def test_connections_that_are_forgotten_are_given_up_and_work_goes_on(tmp_path, server_url, size, capsys):
    with Network(tmp_path, server_url, size) as network:
        network.add(JOBS)
        forgotten = network.proxy.forget()
        assert forgotten > 0
        began = time.monotonic()
        network.add(JOBS)
        network.until_done()
        took = time.monotonic() - began
        _, twice = network.runs()
        assert twice == []
        # The network may be silent for 15 seconds; then a fresh connection, or a fresh worker, goes on. What was
        # claimed by a transaction that was open just then waits for the server, which ends it after 60.
        assert took <= 60 + 15
    with capsys.disabled():
        print(f"\n{server_url.partition(':')[0]}: {forgotten} connections forgotten, all done after {took:.1f} s")


LOCKS = {
    "postgresql": (
        "LOCK TABLE background_jobs IN ACCESS EXCLUSIVE MODE",
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'sapwood'",
    ),
    "mysql": (
        "LOCK TABLES background_jobs WRITE",
        "SELECT count(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for table%%'",
    ),
}


def test_a_worker_killed_while_its_claim_waits_for_a_lock_leaves_nothing_behind(tmp_path, server_url, size, cuts):
    with Network(tmp_path, server_url, size) as network:
        project = network.project
        lock, waiting = LOCKS[server_url.partition("+")[0]]
        engine = project.adapter._connected()
        for _ in range(max(3, cuts // 4)):
            network.until_done()
            with engine.connect() as holder, engine.connect() as looker:
                holder.exec_driver_sql("BEGIN")
                numbers = range(network.enqueued, network.enqueued + 20)
                project.enqueue("run", *numbers)
                network.enqueued += 20
                holder.exec_driver_sql(lock)

                def is_waiting(looker=looker, waiting=waiting):
                    return looker.exec_driver_sql(waiting).scalar_one() >= 1

                wait_until(is_waiting, seconds=30, pause=0.002, about="a claim to wait")
                victims = project.workers()
                for victim in victims:
                    victim.kill()
                psutil.wait_procs(victims, timeout=10)
                holder.exec_driver_sql("ROLLBACK")
                if "mysql" in server_url:
                    holder.exec_driver_sql("UNLOCK TABLES")
        network.until_done(seconds=90)
        claims, twice = network.runs()
        assert set(claims) == set(range(network.enqueued))
        assert twice == []
        assert project.stop().returncode == 0
