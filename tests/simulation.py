"""Supervisors, workers and rescue through random faults, in virtual time. It is their own code that runs.

One schedule: some hosts, each with a supervisor and its workers or with a worker that stands alone, one store, jobs of
random lengths, and faults: freezes, cuts, kills, outages, lost answers, clocks that are set. The store's side of every
call is watched, and what is found there is compared with what is true in the simulated world:

* Two workers whose code runs never run one job at once. One that is frozen does not run; one that thaws has
  ``GRACE`` seconds to find out that it was taken for dead.
* No outcome is accepted from a worker whose claim was taken back.
* A worker is taken for dead by its beat only where that stood still for the whole time, and never while its supervisor
  was able to beat: an outage of the store is nobody's death.
* A rescue counts tries and deaths as what truly happened to the job demands.
* Each job ends, and ends once.
* From a death to its jobs being back it takes at most so long, wherever somebody was there to see it.
"""

from collections import Counter, defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from msgspec import Struct

from sapwood import link, maintenance, steward, worker
from sapwood.adapters.base import BaseAdapter, JobFilter
from sapwood.adapters.memory import MemoryAdapter
from sapwood.errors import StoreError, StoreUnavailable
from sapwood.events import Events
from sapwood.lifecycle import KILLED_ITS_WORKER, MAX_DEATHS, Failed, Failure, Retried, Succeeded, Trace
from sapwood.link import Link
from sapwood.plan import Plan, WorkerPlan
from sapwood.record import JobDraft, JobState
from sapwood.supervised import Supervised
from sapwood.supervisor import Supervisor
from sapwood.timing import Timing, Trust
from sapwood.worker import Worker
from virtual import EPOCH, Host, Spans, Violation, World, installed

GRACE = 1.0
"""A process that thaws has so many seconds to find out that its jobs are another's."""

LATENCY = 0.002
NEVER = 1e9

GIVE_UP = 5.0
"""A client waits so long for an answer."""

SOON = 90.0
"""So long does it take at most, hundredths apart, until the jobs of a dead host are back."""

PATIENCE = 10_000.0
"""So long after the last fault every job must have ended. Those that a death has set apart run one after another."""

BOOM = Failure("ValueError: boom")


class Job(Struct):
    """What a job will do, and what came of it."""

    seconds: float
    failures: int
    """So many tries fail before one succeeds."""

    enqueued: float
    ends: int = 0
    deaths: int = 0


class Claim(Struct):
    """One claim of a job, as it truly went."""

    worker: str
    process: object
    trace: Trace = Trace.NOT_STARTED
    suspect_since: float | None = None
    """When the fault began that took its worker away."""

    by_kill: bool = False
    """That fault was the death of the worker alone, its supervisor being there to see it."""


class _Call(Struct):
    """A request under way."""

    process: object
    verb: str
    args: tuple
    options: dict
    thread: object
    ticket: int
    patient_until: float
    back: float
    """So many seconds does the answer take."""

    done: list = []
    answers: list = []


class Figures(Struct):
    """What schedules came to."""

    schedules: int = 0
    jobs: int = 0
    events: Counter = {}
    by_beat: list[float] = []
    """Seconds from the death, cut or freeze of a supervisor or host to each of its jobs being back."""

    by_parent: list[float] = []
    """Seconds from the death of a worker to each of its jobs being back."""

    unseen: int = 0
    """Jobs that came back while nobody could see the death in time: not counted above."""

    longest_overlap: float = 0.0
    """Seconds for which a thawed process ran a job that was another's by then."""

    def add(self, other):
        self.schedules += other.schedules
        self.jobs += other.jobs
        self.events = Counter(self.events) + Counter(other.events)
        self.by_beat += other.by_beat
        self.by_parent += other.by_parent
        self.unseen += other.unseen
        self.longest_overlap = max(self.longest_overlap, other.longest_overlap)

    def __str__(self):
        events = ", ".join(f"{name} {number}" for name, number in sorted(self.events.items()))
        return "\n".join(
            [
                f"schedules {self.schedules}, jobs {self.jobs}; {events}",
                f"back after a supervisor's or host's: {_spread(self.by_beat)}; nobody there to see: {self.unseen}",
                f"back after a worker's death: {_spread(self.by_parent)}",
                f"longest overlap after a thaw: {self.longest_overlap:.3f} s",
            ]
        )


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _spread(values):
    return f"p50 {percentile(values, 0.5):.1f} s, p99 {percentile(values, 0.99):.1f} s, n {len(values)}"


# --- the store, seen from both ends of the network --------------------------------------------------------------------


class Client(BaseAdapter):
    """A process's way to the store: every call may be slow, be lost, come late, or be done and not answered."""

    def __init__(self, simulation):
        self._simulation = simulation

    def listen(self, wake):
        return lambda: None

    def describe(self):
        return "virtual://"

    def close(self):
        pass


def _passed_on(verb):
    def call(self, *args, **options):
        return self._simulation.call(verb, args, options)

    return call


for _verb in {*BaseAdapter.__abstractmethods__, "exchange"} - {"describe", "close"}:
    setattr(Client, _verb, _passed_on(_verb))
Client.__abstractmethods__ = frozenset()

_NEVER_LATE = {"release"}
"""A transaction of several statements: without whoever asked it is not committed."""

_WITHOUT_NOW = {"workers", "ready_queues", "get", "jobs", "counts"}


class Simulation:
    """One schedule."""

    job_seconds = ((0.01, 0.1), (0.1, 5), (5, 40), (40, 160))
    fault_seconds = ((0.5, 15), (15, 45), (40, 75), (75, 120), (75, 120))
    faults = (
        *("freeze_process", "freeze_process", "freeze_host", "cut", "cut", "outage"),
        *("kill_worker", "kill_worker", "kill_supervisor", "set_clock"),
    )

    def __init__(self, seed, *, timing=None, store=MemoryAdapter):
        self.world = World(seed)
        self.random = self.world.random
        self.timing = timing or Timing()
        self.store = store()
        self.figures = Figures(1, 0, Counter(), [], [])
        self.clock_error = self.clock_furthest = 0.0
        self.is_down = False
        self.outages = Spans(self.world)
        self.jobs = {}
        self.unended = 0
        self.claims = {}
        self.owners = {}
        self.beats = {}
        self.runs = defaultdict(list)
        self.supervisors = {}
        self.trace = []

    # --- what happens ---------------------------------------------------------------------------------------------

    def run(self):
        """Run the schedule, and return its figures."""
        hosts = [Host(self.world, f"h{number}") for number in range(self.random.choice([2, 2, 3]))]
        with installed(self.world, child=self._be_worker), self._stand_ins():
            try:
                for host in hosts:
                    self._boot(host)
                for _ in range(self.random.randint(12, 24)):
                    self.world.at(self.random.choice([0, self.random.uniform(0, 120)]), self._enqueue)
                calm = self._plan_faults(hosts)
                self.world.at(calm, self._heal, hosts)
                self.world.run(until=calm + PATIENCE, done=lambda: self.world.now > calm and self._is_done())
                self._check_end()
            finally:
                self.world.end()
        return self.figures

    @contextmanager
    def _stand_ins(self):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "Executor", lambda app, **_: _Executor(self))
            patch.setattr(worker, "Sources", _NoSources)
            # A page with room for what there is here.
            patch.setattr(worker, "MOST_UNWRITTEN", 40)
            patch.setattr(worker, "_PAGE_SLACK", 10)
            yield

    def _boot(self, host):
        alone = self.random.random() < 0.15
        self.supervisors[host] = self.world.spawn(host, self._be_alone if alone else self._be_supervisor)
        self.supervisors[host].on_death.append(self._dead)
        self.supervisors[host].on_death.append(self._reboot)

    def _reboot(self, process):
        """The service manager starts another."""
        self.world.after(self.random.uniform(1, 20), self._boot, process.host)

    def _enqueue(self):
        seconds = self.random.uniform(*self.random.choice(self.job_seconds))
        job = Job(seconds, self.random.choice([0, 0, 0, 1, 2]), self.world.now)
        (number,) = self.store.enqueue([JobDraft(job="m:J", args="{}", max_attempts=8)], now=self._now())
        self.jobs[number] = job
        self.unended += 1
        self.figures.jobs += 1

    # --- who there is ---------------------------------------------------------------------------------------------

    def _be_supervisor(self):
        workers = [
            WorkerPlan(name=f"default.{number}", group="default", adapter="default", concurrency=4, poll_interval=2)
            for number in range(self.random.choice([1, 2]))
        ]
        plan = Plan(
            app="",
            directory="",
            release="",
            command=["worker"],
            workers=workers,
            stores={"default": {}},
            timing=self.timing,
        )
        Supervisor(plan, {"default": Client(self)}).run()

    def _be_worker(self, descriptor):
        """Do what a worker process does."""
        process = self.world.process
        process.on_death.append(self._dead)
        ours = Link(self.world.sockets[descriptor])
        (welcome, *_) = ours.receive()
        self.world.park(self.random.uniform(0.05, 2))  # it loads the application
        client, plan = Client(self), welcome.plan
        keeper = Supervised(ours, welcome, client)
        inner = self._worker(client, plan, keeper)
        keeper.follow(stop=inner.stop, quiet=inner.quiet)
        try:
            inner.workoff() if plan.apart else inner.run()
        except StoreError as error:
            ours.send(link.Unusable(str(error)))
            return 3
        ours.send(link.Ended())
        return 0

    def _be_alone(self):
        plan = WorkerPlan(name="", group="", adapter="default", concurrency=4, poll_interval=2)
        try:
            self._worker(Client(self), plan, None).run()
        except StoreError:
            return 3
        return 0

    def _worker(self, client, plan, keeper):
        app = SimpleNamespace(
            adapter=lambda name: client, events=Events(), timing=self.timing, load=lambda: None, check_queue=print
        )
        poll = plan.poll_interval if keeper is None else self.timing.look
        return Worker(app, concurrency=plan.concurrency, poll_interval=poll, keeper=keeper)

    # --- faults ---------------------------------------------------------------------------------------------------

    def _plan_faults(self, hosts):
        """Plan what goes wrong; return when the last of it is over."""
        end = 60.0
        for _ in range(self.random.randint(2, 5)):
            begin = self.random.uniform(1, 150)
            seconds = self.random.uniform(*self.random.choice(self.fault_seconds))
            fault = getattr(self, f"_{self.random.choice(self.faults)}")
            self.world.at(begin, fault, self.random.choice(hosts), seconds)
            end = max(end, begin + seconds)
        return end

    def _note(self, what, *details):
        self.trace.append((round(self.world.now, 6), what, *details))
        self.figures.events[what] += 1

    def _processes(self, host):
        top = self.supervisors[host]
        return [process for process in [top, *top.children] if not process.is_dead]

    def _freeze_process(self, host, seconds):
        processes = self._processes(host)
        if processes:
            self._freeze([self.random.choice([processes[0], *processes])], seconds)

    def _freeze_host(self, host, seconds):
        self._freeze(self._processes(host), seconds)

    def _freeze(self, processes, seconds):
        self._note("freeze", processes[0].host.name if processes else "", len(processes))
        for process in processes:
            process.freeze()
            if process.parent is None:
                self._suspect(process)
        self.world.after(seconds, self._thaw, processes)

    def _thaw(self, processes):
        for process in processes:
            process.thaw()
            self._clear(process)
            self.world.after(GRACE, self._check_thawed, process)

    def _cut(self, host, seconds):
        self._note("cut", host.name)
        host.is_cut = True
        host.cuts.begin()
        self._suspect(self.supervisors[host])
        self.world.after(seconds, self._join, host)

    def _join(self, host):
        host.is_cut = False
        host.cuts.end()
        self._clear(self.supervisors[host])

    def _outage(self, host, seconds):
        self._note("outage")
        self.is_down = True
        self.outages.begin()
        self.world.after(seconds, self._return)

    def _return(self):
        self.is_down = False
        self.outages.end()

    def _kill_worker(self, host, seconds):
        workers = [process for process in self._processes(host) if process.parent is not None]
        if workers:
            self._note("worker killed")
            victim = self.random.choice(workers)
            self._suspect(victim, by_kill=True)
            victim.die(-9)

    def _kill_supervisor(self, host, seconds):
        self._note("supervisor killed", host.name)
        self._suspect(self.supervisors[host])
        self.supervisors[host].die(-9)

    def _set_clock(self, host, seconds):
        """Set the clock of the store, or of a host."""
        self._note("clock set")
        step = self.random.choice([-1, 1]) * self.random.choice([1, 30, 90, 3600])
        if self.random.random() < 0.5:
            self.clock_error += step
            self.clock_furthest = max(self.clock_furthest, self.clock_error)
        else:
            host.wall_error += step

    def _heal(self, hosts):
        """Nothing is wrong any more."""
        # The clock too, as far as jobs go: one put off while it was an hour ahead would be due an hour later.
        self.clock_error = self.clock_furthest
        self._return()
        for host in hosts:
            self._join(host)
            self._thaw(self._processes(host))

    # --- the network, and the store behind it ---------------------------------------------------------------------

    def _now(self):
        return datetime.fromtimestamp(EPOCH + self.world.now + self.clock_error, UTC)

    def call(self, verb, args, options):
        """Do what a client asks, with all that may come in between. It takes time, and may raise."""
        world, random = self.world, self.random
        process = world.process
        if process.host.is_cut or self.is_down:
            # Refused at once, or nobody answers at all.
            world.park(random.choice([0.001, GIVE_UP]))
            raise StoreUnavailable("virtual")
        there = back = LATENCY
        if verb == "rescue" and options.get("beat") is not None and random.random() < 0.4:
            there = self._worst_moment(args[0])
        elif random.random() < 0.02:
            there, back = random.choice([(LATENCY, 3), (3, LATENCY), (1.5, 1.5), (LATENCY, NEVER), (NEVER, 0), (20, 0)])
            if there > GIVE_UP and verb in _NEVER_LATE:
                there = NEVER
        call = _Call(process, verb, args, options, world.thread, world.thread.ticket, world.now + GIVE_UP, back)
        world.after(there, self._arrive, call)
        if there + back > GIVE_UP:
            world.after(GIVE_UP, self._answer, call)
        world.park()
        if not call.answers:
            raise StoreUnavailable("virtual")
        return call.answers[0]

    def _worst_moment(self, name):
        """Let a fault end just when somebody has decided that its victim is dead; return how long that one lingers."""
        beater = self.owners[name].parent or self.owners[name]
        self._join(beater.host)
        self._thaw(self._processes(beater.host))
        return self.random.uniform(LATENCY, GIVE_UP / 2)

    def _arrive(self, call):
        """The request has come to the store, which does it, whatever became of who asked."""
        if self.is_down or call.process.host.is_cut:
            self.world.at(call.patient_until, self._answer, call)
            return
        call.done = [self._done(call.process, call.verb, call.args, call.options)]
        if self.world.now <= call.patient_until:
            self.world.after(call.back, self._answer, call)

    def _answer(self, call):
        """The answer has come to who asked, or the time for it is over."""
        if not (self.is_down or call.process.host.is_cut or self.world.now > call.patient_until):
            call.answers = call.done
        elif self.world.now < call.patient_until:
            self.world.at(call.patient_until, self._answer, call)
            return
        self.world.resume(call.thread, call.ticket)

    def _done(self, process, verb, args, options):
        if verb not in _WITHOUT_NOW:
            options = {**options, "now": self._now()}
        watch = getattr(self, f"_watch_{verb}", None)
        if watch is None:
            return getattr(self.store, verb)(*args, **options)
        return watch(process, getattr(self.store, verb), *args, **options)

    # --- what the store is asked, and what is true ----------------------------------------------------------------

    def _watch_register(self, process, register, record, **options):
        self.owners[record.id] = process
        self.beats[record.id] = self.world.now
        return register(record, **options)

    def _watch_beat(self, process, beat, workers, **options):
        known = beat(sorted(workers), **options)
        self.beats.update(dict.fromkeys(known, self.world.now))
        return known

    def _watch_settle(self, process, settle, name, settlements, **options):
        written = settle(name, settlements, **options)
        self._check_settled(name, settlements, written)
        return written

    def _watch_exchange(self, process, exchange, name, settlements, **options):
        answer = exchange(name, settlements, **options)
        self._check_settled(name, settlements, answer.settled)
        self._note_claimed(process, name, answer.claimed)
        return answer

    def _watch_claim(self, process, claim, name, **options):
        answer = claim(name, **options)
        self._note_claimed(process, name, answer.claimed)
        return answer

    def _note_claimed(self, process, name, records):
        for record in records:
            if record.id in self.claims:
                self.world.broken(f"job {record.id} was claimed by {name} while another holds it")
            if record.attempts > record.max_attempts:
                self.world.broken(f"job {record.id} is tried more often than it may be")
            self.claims[record.id] = (record.lock_token, Claim(name, process))

    def _check_settled(self, name, settlements, written):
        for settlement in settlements:
            record, outcome = settlement.record, settlement.outcome
            if record.id not in written:
                continue
            token, claim = self.claims.pop(record.id, (None, None))
            if claim is None or (token, claim.worker) != (record.lock_token, name):
                self.world.broken(f"an outcome of job {record.id} was taken from {name}, whose claim was taken back")
            if isinstance(outcome, Succeeded | Failed):
                self._ended(record.id)

    def _watch_release(self, process, release, name, **options):
        return self._given_back(release(name, **options))

    def _watch_unregister(self, process, unregister, name, **options):
        return self._given_back(unregister(name, **options))

    def _given_back(self, records):
        for record in records:
            self.claims.pop(record.id, None)
        return records

    def _watch_sweep(self, process, sweep, **options):
        return self._check_rescue(sweep, None, (), options)

    def _watch_rescue(self, process, rescue, name, **options):
        if options.get("beat") is None and options.get("notes") is None:
            return self._check_rescue(rescue, None, (name,), options)
        known = name in {record.id for record in self.store.workers()}
        records = self._check_rescue(rescue, options.get("notes"), (name,), options)
        if records is not None and known and "notes" not in options:
            self._check_dead(name, had_jobs=bool(records))
        return records

    def _check_rescue(self, rescue, notes, args, options):
        before = {record.id: record for record in self.store.jobs(JobFilter(states=[JobState.RUNNING]))}
        records = rescue(*args, **options)
        for record in records or ():
            _, claim = self.claims.pop(record.id)
            self._check_counted(before[record.id], record, claim, is_known=notes is not None)
            self._note_back(record, claim)
            if record.state is JobState.FAILED:
                self._ended(record.id)
        return records

    def _check_dead(self, name, *, had_jobs):
        """A beat that stood still was taken for a death: it must have been one, as far as anybody could know."""
        self._note("taken for dead")
        if self.world.now - self.beats[name] < self.timing.rescue:
            self.world.broken(
                f"worker {name} was taken for dead {self.world.now - self.beats[name]:.3f} s after a beat"
            )
        beater = self.owners[name].parent or self.owners[name]
        since = self.world.now - self.timing.rescue
        silent = beater.unable.seconds(since) + beater.host.cuts.seconds(since)
        # Without jobs it may be a row whose registration was not answered: its worker has another id by now.
        if had_jobs and silent < self.timing.rescue / 3:
            self.world.broken(f"worker {name} was taken for dead though its supervisor could beat, or tell of its end")

    def _check_counted(self, before, after, claim, *, is_known):
        trace = claim.trace if is_known else Trace.UNKNOWN
        if is_known and trace is Trace.STARTED and claim.process.by_own_hand:
            trace = Trace.NOT_STARTED
        job = self.jobs[after.id]
        job.deaths += trace in {Trace.STARTED, Trace.UNKNOWN}
        spent = trace in {Trace.STARTED, Trace.ENDED_BADLY}
        expected = (before.attempts - (not spent), job.deaths)
        if (after.attempts, after.deaths) != expected:
            self.world.broken(f"job {after.id} ({trace}) has tries, deaths {after.attempts, after.deaths}: {expected}")
        last = job.deaths >= MAX_DEATHS or (spent and after.attempts >= after.max_attempts)
        if (after.state is JobState.FAILED) != last:
            self.world.broken(f"job {after.id} is {after.state} after {job.deaths} deaths, {after.attempts} tries")
        if after.state is JobState.FAILED and job.deaths >= MAX_DEATHS and after.last_error != KILLED_ITS_WORKER:
            self.world.broken(f"job {after.id} does not say why it failed")

    def _ended(self, number):
        self.jobs[number].ends += 1
        self.unended -= 1
        if self.jobs[number].ends > 1:
            self.world.broken(f"job {number} ended twice")

    # --- how long it took -----------------------------------------------------------------------------------------

    def _suspect(self, process, *, by_kill=False):
        """From now on the jobs of a process, or of a supervisor's workers, are for others to take back."""
        for _, claim in self.claims.values():
            if claim.suspect_since is None and process in {claim.process, claim.process.parent}:
                claim.suspect_since, claim.by_kill = self.world.now, by_kill

    def _clear(self, process):
        for _, claim in self.claims.values():
            since = claim.suspect_since
            if since is None or claim.process.is_dead or process not in {claim.process, claim.process.parent}:
                continue
            if self.world.now - since > SOON and self._was_seen(claim.process.parent or claim.process, since):
                # Nobody took it back, as long as the fault was.
                self.figures.by_beat.append(self.world.now - since)
            claim.suspect_since = None

    def _note_back(self, record, claim):
        self._note("back", record.id)
        since = claim.suspect_since
        if since is None:
            return
        seconds = self.world.now - since
        beater = claim.process.parent or claim.process
        if claim.by_kill:
            if not self.outages.seconds(since) + beater.unable.seconds(since) + beater.host.cuts.seconds(since):
                self.figures.by_parent.append(seconds)
        elif self._was_seen(beater, since):
            self.figures.by_beat.append(seconds)
        else:
            self.figures.unseen += 1

    def _was_seen(self, beater, since):
        """Say whether the store was there all the time, and somebody to watch it."""
        observers = [process for process in self.supervisors.values() if process is not beater]
        return not self.outages.seconds(since - self.timing.beat) and any(self._saw(one, since) for one in observers)

    def _saw(self, process, since):
        since -= self.timing.beat
        return process.began < since and not process.unable.seconds(since) + process.host.cuts.seconds(since)

    # --- who runs what --------------------------------------------------------------------------------------------

    def perform(self, record):
        """Run a job: the code of the application."""
        process, job = self.world.process, self.jobs[record.id]
        token, claim = self.claims.get(record.id, (None, None))
        if token == record.lock_token:
            claim.trace = Trace.STARTED
        run = SimpleNamespace(record=record, process=process)
        self.runs[record.id].append(run)
        self._check_owners(record.id)
        self.world.park(job.seconds)
        self._leave(run)
        fails = record.attempts <= job.failures
        if token == record.lock_token:
            claim.trace = Trace.ENDED_BADLY if fails else Trace.ENDED_WELL
        return Retried(self.random.uniform(0, 10), BOOM) if fails else Succeeded()

    def _check_owners(self, number):
        live = [run for run in self.runs[number] if self._runs(run)]
        if len(live) > 1:
            names = " and ".join(f"{run.record.locked_by} on {run.process.host.name}" for run in live)
            self.world.broken(f"job {number} is run by {names}")

    def _runs(self, run):
        """Say whether its code runs now, and has no excuse."""
        process = run.process
        if process.is_dead or process.is_frozen:
            return False
        if process.parent is None and self.world.now - self.beats[run.record.locked_by] >= self.timing.fence:
            # What a thread runs cannot be ended: that is documented.
            return False
        return self.world.now - process.thawed >= GRACE

    def _check_thawed(self, process):
        for number, runs in self.runs.items():
            if any(run.process is process for run in runs):
                self._check_owners(number)

    def _dead(self, process):
        for run in [run for runs in self.runs.values() for run in runs if run.process is process]:
            self._leave(run)

    def _leave(self, run):
        """Its code has ended: note for how long it ran beside another's after a thaw."""
        runs, thawed = self.runs[run.record.id], run.process.thawed
        runs.remove(run)
        if (
            run.process.parent is not None
            and not run.process.is_frozen
            and self.world.now - thawed < GRACE
            and any(map(self._runs, runs))
        ):
            self.figures.longest_overlap = max(self.figures.longest_overlap, self.world.now - thawed)

    # --- the end --------------------------------------------------------------------------------------------------

    def _is_done(self):
        return self.unended == 0

    def _check_end(self):
        left = {record.id: record for record in self.store.jobs()}
        for number, job in self.jobs.items():
            record = left.get(number)
            if record is not None and record.state is not JobState.FAILED:
                self.world.broken(f"job {number} is still {record.state}, {PATIENCE:g} s after the last fault")
            elif job.ends != 1:
                self.world.broken(f"job {number} is lost" if not job.ends else f"job {number} ended {job.ends} times")
        if self.world.violation is not None:
            raise self.world.violation


class Hard(Simulation):
    """A schedule in which jobs outlast the faults, and the faults what can be forgiven."""

    job_seconds = ((30, 90), (60, 240))
    fault_seconds = ((55, 75), (75, 120))
    faults = ("freeze_process", "freeze_host", "freeze_host", "freeze_host", "cut", "outage")


class _Executor:
    def __init__(self, simulation):
        self._simulation = simulation

    def is_async(self, record):
        return False

    def is_isolated(self, record):
        return False

    def run_time(self, record):
        return None

    def execute(self, record, *, stopping, limit):
        return self._simulation.perform(record)


class _NoSources:
    def note(self):
        pass

    def changed(self):
        return ()


def simulated(seeds):
    """Run schedules; return their figures. The first that breaks a rule ends it, and its seed is named."""
    figures = Figures(0, 0, Counter(), [], [])
    for seed in seeds:
        try:
            kind = Hard if seed % 5 == 0 else Simulation
            figures.add(kind(seed).run())
        except Violation as violation:
            raise Violation(f"schedule {seed}, {violation}; SAPWOOD_SEED={seed} repeats it first") from None
    return figures


# --- one rule broken --------------------------------------------------------------------------------------------------

SABOTAGE = {}
"""By name: a function that is given a patch, breaks one rule, and returns options for the simulation."""


def _sabotage(function):
    SABOTAGE[function.__name__.replace("_", " ")] = function
    return function


def violation_found(name, seeds):
    """Run schedules with one rule broken; return the first violation, and None where there is none."""
    for seed in seeds:
        with pytest.MonkeyPatch.context() as patch:
            try:
                Hard(seed, **SABOTAGE[name](patch)).run()
            except Violation as violation:
                return f"schedule {seed}, {violation}"
    return None


@_sabotage
def rescue_by_age(patch):
    def rescue_old(adapter, watch, *, mine, **_):
        found = []
        limit = datetime.fromtimestamp(steward.time.time() - Timing().rescue, UTC)
        running = adapter.jobs(JobFilter(states=[JobState.RUNNING]))
        for name in {record.locked_by for record in running if record.locked_at < limit} - set(mine):
            records = adapter.rescue(name)
            if records is not None:
                found.append((name, records))
        return found

    patch.setattr(steward, "rescue_dead", rescue_old)
    patch.setattr(maintenance, "rescue_dead", rescue_old)
    return {}


@_sabotage
def self_fence_off(patch):
    patch.setattr(Trust, "holds", lambda self, *, at: self.began is not None)
    return {}


@_sabotage
def beat_not_compared(patch):
    class Careless(MemoryAdapter):
        def rescue(self, worker, *, beat=None, **options):
            return super().rescue(worker, **options)

    return {"store": Careless}


@_sabotage
def gap_rule_off(patch):
    return {"timing": Timing(gap=1e9)}


@_sabotage
def fence_off_in_settle(patch):
    class Open(MemoryAdapter):
        def _holds(self, worker, seen):
            row = self._rows.get(seen.id)
            return row is not None and row.state is JobState.RUNNING

    return {"store": Open}
