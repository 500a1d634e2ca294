"""Two hosts on one server, one of them cut off while it works: it ends what it runs before the other takes it over.

The sabotage: a build without the fence goes on, and two runs of one job overlap.
"""

import threading
import time

import psutil
import pytest
from hosts import Host
from proxy import Proxy

from background import Project, wait_until
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter

pytestmark = pytest.mark.timeout(3600)

GATES = 4

NO_FENCE = """
from sapwood.timing import Trust

Trust.has_ended = lambda self, *, at: False
Trust.holds = lambda self, *, at: self.began is not None
"""


@pytest.fixture(params=["postgresql", "mysql"])
def server_url(request, database_url):
    """An empty database of each server."""
    return database_url(request.param)


@pytest.fixture
def hosts():
    """Two hosts, each with a cable of its own."""
    made = []
    try:
        made.append(Host())
        made.append(Host())
        yield made
    finally:
        for host in made:
            host.end()


class Pair:
    """A project on two hosts."""

    def __init__(self, folder, url, size, hosts):
        self.proxy = Proxy(url, host=hosts[0].gateway)
        self.project = Project(folder, url, scale=size.scale)
        self.project.url = self.proxy.url
        self.project.write()
        self.project.adapter = SQLAlchemyAdapter(url)
        self.hosts = hosts

    def start(self, number, *words, **environ):
        self.project.prefix = self.hosts[number].prefix()
        self.project.start("-n", "2", "-c", "2", *words, state=f"host-{number}", **environ)
        self.project.prefix = ()

    def end(self):
        self.project.end()
        self.proxy.close()


class Deaths:
    """Notes when each of some processes ended."""

    def __init__(self, processes):
        self.at = {}
        self._left = list(processes)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        psutil.wait_procs(self._left, callback=lambda process: self.at.setdefault(process.pid, time.monotonic()))

    def __len__(self):
        return len(self.at)


def _cut_off(pair, **environ):
    """Cut the first host off while it works; return when its workers died, and when the other took over."""
    project = pair.project
    pair.start(0, **environ)
    project.enqueue("effect", *range(100, 200), seconds=0.01)
    project.enqueue("gate", *range(GATES))
    wait_until(lambda: project.counted("begun") == GATES, seconds=60, about="the first host to work")
    workers = project.workers("host-0")
    pair.start(1)
    deaths, cut = Deaths(workers), time.monotonic()
    pair.hosts[0].pull()
    wait_until(
        lambda: project.counted("begun") > GATES, seconds=120 * project.scale + 60, about="the other to take over"
    )
    ((taken_over,),) = project._effects.execute(
        "SELECT min(at) FROM (SELECT at FROM effects WHERE what = 'begun' ORDER BY at LIMIT -1 OFFSET ?)", (GATES,)
    ).fetchall()
    return workers, deaths, cut, taken_over


def test_a_host_that_is_cut_off_ends_its_runs_before_another_begins_them(tmp_path, server_url, size, hosts, capsys):
    pair = Pair(tmp_path, server_url, size, hosts)
    project = pair.project
    try:
        workers, deaths, cut, taken_over = _cut_off(pair)
        wait_until(lambda: len(deaths) == len(workers), seconds=10, about="its workers to be gone")
        assert max(deaths.at.values()) < taken_over, "the old runs were dead before the new ones began"
        project.let_gates_open()
        wait_until(lambda: not project.states(), seconds=120, about="all to be done")
        hosts[0].plug()
        wait_until(lambda: project.status("host-0")["supervisor"]["state"] == "ready", seconds=60, about="its return")
        project.stop(state="host-1")
        project.enqueue("effect", *range(200, 220))
        wait_until(lambda: not project.states(), seconds=60, about="the first host to work again")
        numbers = sorted(number for number, _, _ in project.effects())
        assert numbers == [*range(GATES), *range(100, 220)], "nothing was lost, and nothing done twice"
        assert project.stop(state="host-0").returncode == 0
        assert project.adapter.workers() == []
    finally:
        pair.end()
    with capsys.disabled():
        print(
            f"\n{server_url.partition(':')[0]}: cut off, dead after {max(deaths.at.values()) - cut:.2f} s, "
            f"taken over after {taken_over - cut:.2f} s, nothing twice"
        )


def test_a_build_without_the_fence_is_found(tmp_path, database_url, size, hosts):
    pair = Pair(tmp_path, database_url("postgresql"), size, hosts)
    try:
        workers, deaths, _, _ = _cut_off(pair, **pair.project.sabotage(NO_FENCE))
        assert len(deaths) < len(workers), "it goes on while the other runs its jobs"
    finally:
        hosts[0].plug()
        pair.end()
