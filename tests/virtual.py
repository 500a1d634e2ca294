"""A machine room in one thread: processes, threads, locks and sockets in virtual time. What runs there does not notice.

Threads are greenlets; one runs until it waits for something. What they wait for is a heap of moments, so that an hour
takes no longer than what happens in it, and the same seed gives the same run. :func:`installed` puts these things in
place of the standard library's, in the modules of sapwood that use them.
"""

import os
import signal
import tempfile
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from heapq import heappop, heappush
from itertools import count
from queue import Empty
from random import Random
from types import SimpleNamespace

import pytest
from greenlet import getcurrent, greenlet

from sapwood import link, maintenance, outage, pool, processes, steward, supervised, supervisor, worker

LAG = 0.05
"""Within so many seconds after a thaw each thread gets to run again, in any order."""


EPOCH = 1_800_000_000
"""The true time at which a world begins."""


class Over(BaseException):
    """The world has ended, and every thread with it."""


class Violation(AssertionError):
    """A rule was broken."""


class World:
    """Virtual time and all that happens in it."""

    def __init__(self, seed):
        self.random = Random(seed)
        self.now = 0.0
        self.is_over = False
        self.violation = None
        self.thread = None
        self.processes = []
        self.sockets = {}
        self.files = []
        self.numbers = count(1)
        self._events = []
        self._hub = getcurrent()

    # --- time -----------------------------------------------------------------------------------------------------

    def at(self, when, call, *args):
        heappush(self._events, (when, next(self.numbers), call, args))

    def after(self, seconds, call, *args):
        self.at(self.now + seconds, call, *args)

    def run(self, *, until, done):
        """Let time pass until something holds, at most until that moment."""
        while self._events and self._events[0][0] <= until and not done():
            self.now, _, call, args = heappop(self._events)
            call(*args)
            if self.violation is not None:
                raise self.violation

    def temporary_file(self):
        # In memory, where that can be had: a busy disk would be the slowest thing here.
        opened = tempfile.TemporaryFile
        if hasattr(os, "memfd_create"):
            opened = partial(os.fdopen, os.memfd_create("page"), "w+b")
        self.files.append(opened())
        return self.files[-1]

    def end(self):
        """End all threads, and close what is open in the real world."""
        self.is_over, self.thread = True, None
        for process in self.processes:
            for thread in process.threads:
                while thread.greenlet:
                    thread.greenlet.throw(Over)
        for file in self.files:
            file.close()

    def broken(self, what):
        """Note that a rule was broken. Whoever does it is not disturbed: it would take that for an error of its own."""
        self.violation = self.violation or Violation(f"at {self.now:.3f} s: {what}")

    # --- threads --------------------------------------------------------------------------------------------------

    @property
    def process(self):
        if self.is_over:
            raise Over
        return self.thread.process

    def park(self, seconds=None):
        """Have the running thread wait until it is woken, or the time is over; return what it is woken with."""
        if self.is_over:
            raise Over
        thread = self.thread
        if seconds is not None:
            self.at(self.now + max(0.0, seconds), self.resume, thread, thread.ticket, False)
        return self._hub.switch()

    def wake(self, thread, ticket, answer=True):
        """Wake a thread from the wait that had this ticket, if it is still in it."""
        if thread.ticket == ticket:
            self.at(self.now, self.resume, thread, ticket, answer)

    def resume(self, thread, ticket, answer=True):
        """Have a thread go on now, if it is still in the wait that had this ticket. Not from another thread."""
        process = thread.process
        if thread.ticket != ticket or process.is_dead:
            return
        if process.is_frozen:
            process.due.append((thread, ticket, answer))
            return
        thread.ticket += 1
        self.thread = thread
        thread.greenlet.switch(answer)
        self.thread = None

    # --- processes ------------------------------------------------------------------------------------------------

    def spawn(self, host, main, *, parent=None, sockets=()):
        process = Process(self, host, parent)
        for end in sockets:
            end.references += 1
            process.sockets.append(end)
        process.start_thread(partial(self._live, process, main))
        return process

    def _live(self, process, main):
        process.die(main() or 0)


class Host:
    """A machine: its clocks, and whether the network reaches it."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.booted = -world.random.uniform(1_000, 10_000_000)
        self.monotonic_from = -world.random.uniform(1_000, 10_000_000)
        self.wall_error = world.random.uniform(-5, 5)
        self.is_cut = False
        self.cuts = Spans(world)


class Spans:
    """When something was the case."""

    def __init__(self, world):
        self._world = world
        self._spans = []

    def begin(self):
        if not self._spans or self._spans[-1][1] is not None:
            self._spans.append([self._world.now, None])

    def end(self):
        if self._spans and self._spans[-1][1] is None:
            self._spans[-1][1] = self._world.now

    def seconds(self, since):
        """Return for how many seconds it was the case since a moment."""
        now = self._world.now
        return sum(max(0.0, (now if end is None else end) - max(begin, since)) for begin, end in self._spans)


class Process:
    """Threads that are frozen and die together."""

    def __init__(self, world, host, parent):
        self.world, self.host, self.parent = world, host, parent
        self.pid = next(world.numbers)
        self.children = []
        self.threads = []
        self.sockets = []
        self.due = []
        self.code = None
        self.by_own_hand = False
        self.is_frozen = self.is_dead = False
        self.began = world.now
        self.thawed = -1e9
        self.unable = Spans(world)
        self.on_death = []
        world.processes.append(self)
        if parent is not None:
            parent.children.append(self)

    def start_thread(self, target):
        thread = _Thread(self)
        thread.greenlet = greenlet(lambda _: _run_to_end(target), parent=self.world._hub)
        self.threads.append(thread)
        self.world.wake(thread, thread.ticket)
        return thread

    def freeze(self):
        if not self.is_dead:
            self.is_frozen = True
            self.unable.begin()

    def thaw(self):
        if self.is_frozen and not self.is_dead:
            self.is_frozen = False
            self.thawed = self.world.now
            self.unable.end()
            due, self.due = self.due, []
            for entry in due:
                self.world.after(self.world.random.uniform(0, LAG), self.world.resume, *entry)

    def die(self, code):
        """End, and the children too: the kernel kills them when the main thread of their parent ends."""
        if not self.is_dead:
            self.is_dead, self.code = True, code
            self.unable.begin()
            for end in list(self.sockets):
                end.drop(self)
            for call in self.on_death:
                call(self)
            for child in self.children:
                child.die(-signal.SIGKILL)
        if self.world.thread is not None and self.world.thread.process is self:
            # It never comes back from here: nobody may see what its code would do on its way out.
            self.world.park()


class _Thread:
    def __init__(self, process):
        self.process = process
        self.ticket = 0
        self.greenlet = None


def _run_to_end(target):
    with suppress(Over):
        target()


# --- what stands in for the standard library --------------------------------------------------------------------------


class Thread:
    def __init__(self, world, *, target, args=(), name="", daemon=None):
        self._world, self._target, self._args = world, target, args
        self._ended = Event(world)

    def start(self):
        self._world.process.start_thread(self._run)

    def _run(self):
        self._target(*self._args)
        self._ended.set()

    def join(self, timeout=None):
        self._ended.wait(timeout)


class Event:
    def __init__(self, world):
        self._world, self._is_set, self._waiting = world, False, []

    def is_set(self):
        if self._world.is_over:
            raise Over
        return self._is_set

    def set(self):
        self._is_set = True
        for thread, ticket in self._waiting:
            self._world.wake(thread, ticket)
        self._waiting.clear()

    def clear(self):
        self._is_set = False

    def wait(self, timeout=None):
        if not self._is_set:
            thread = self._world.thread
            self._waiting.append((thread, thread and thread.ticket))
            self._world.park(timeout)
        return self._is_set


class Lock:
    """It counts, so that it serves as a lock that may be taken again, too."""

    def __init__(self, world):
        self._world, self._owner, self._depth, self._waiting = world, None, 0, deque()

    def __enter__(self):
        if self._world.is_over:
            raise Over
        me = self._world.thread
        while self._owner is not None and self._owner is not me:
            self._waiting.append((me, me.ticket))
            self._world.park()
        self._owner = me
        self._depth += 1

    def __exit__(self, *_):
        self._depth -= 1
        if not self._depth:
            self._owner = None
            if self._waiting:
                self._world.wake(*self._waiting.popleft())


class Condition(Lock):
    def __init__(self, world):
        super().__init__(world)
        self._sleeping = deque()

    def wait_for(self, predicate):
        me = self._world.thread
        while not predicate():
            self._sleeping.append((me, me.ticket))
            self.__exit__()
            self._world.park()
            self.__enter__()

    def notify(self):
        if self._sleeping:
            self._world.wake(*self._sleeping.popleft())

    def notify_all(self):
        while self._sleeping:
            self.notify()


class SimpleQueue:
    def __init__(self, world):
        self._world, self._items, self._waiting = world, deque(), deque()

    def empty(self):
        return not self._items

    def put(self, item):
        self._items.append(item)
        if self._waiting:
            self._world.wake(*self._waiting.popleft())

    def get(self, timeout=None):
        if not self._items:
            thread = self._world.thread
            self._waiting.append((thread, thread and thread.ticket))
            self._world.park(timeout)
        return self.get_nowait()

    def get_nowait(self):
        if not self._items:
            raise Empty
        return self._items.popleft()


class Socket:
    """One end of a pair."""

    def __init__(self, world):
        self._world = world
        self.number = next(world.numbers)
        self.references = 1
        self.peer = None
        self.data = b""
        self.is_shut = False
        self.selectors = []
        self._timeout = None
        self._waiting = []
        world.sockets[self.number] = self
        world.process.sockets.append(self)

    def fileno(self):
        return self.number

    def settimeout(self, seconds):
        self._timeout = seconds

    def setblocking(self, flag):
        self._timeout = None if flag else 0

    @property
    def is_readable(self):
        return bool(self.data) or self.is_shut

    def changed(self):
        for entry in self._waiting:
            self._world.wake(*entry)
        self._waiting.clear()
        for selector in self.selectors:
            selector.changed()

    def send(self, data):
        if self.is_shut:
            raise BrokenPipeError
        self.peer.data += data
        self.peer.changed()
        return len(data)

    sendall = send

    def recv(self, size):
        if not self.is_readable:
            if self._timeout == 0:
                raise BlockingIOError
            thread = self._world.thread
            self._waiting.append((thread, thread and thread.ticket))
            self._world.park(self._timeout)
        if not self.is_readable:
            raise TimeoutError
        data, self.data = self.data[:size], self.data[size:]
        return data

    def close(self):
        self.drop(self._world.process)

    def drop(self, process):
        if self in process.sockets:
            process.sockets.remove(self)
            self.references -= 1
            if not self.references:
                self.peer.is_shut = True
                self.peer.changed()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def socketpair(world):
    ours, theirs = Socket(world), Socket(world)
    ours.peer, theirs.peer = theirs, ours
    return ours, theirs


class Selector:
    def __init__(self, world):
        self._world, self._keys = world, {}
        self._may_be_ready = True
        self._waiting = ()

    def register(self, file, events, data=None):
        self._keys[file.fileno()] = SimpleNamespace(data=data)
        self._world.sockets[file.fileno()].selectors.append(self)
        self._may_be_ready = True

    def unregister(self, file):
        del self._keys[file.fileno()]
        self._world.sockets[file.fileno()].selectors.remove(self)

    def changed(self):
        self._may_be_ready = True
        if self._waiting:
            self._world.wake(*self._waiting)
            self._waiting = ()

    def select(self, timeout):
        ready = self._ready()
        if not ready:
            thread = self._world.thread
            self._waiting = (thread, thread and thread.ticket)
            self._world.park(timeout)
            self._waiting = ()
            ready = self._ready()
        return ready

    def _ready(self):
        if not self._may_be_ready:
            return []
        ready = [(key, 1) for number, key in self._keys.items() if self._world.sockets[number].is_readable]
        self._may_be_ready = bool(ready)
        return ready

    def close(self):
        self._keys.clear()


class Popen:
    """A child on the same host, which runs ``main(descriptor)``."""

    def __init__(self, world, main, arguments, *, pass_fds, **_):
        number = int(arguments[-1])
        parent = world.process
        self._world = world
        self.process = world.spawn(parent.host, partial(main, number), parent=parent, sockets=[world.sockets[number]])
        self.pid = self.process.pid

    @property
    def returncode(self):
        return self.process.code

    def has_ended(self):
        return self.process.code is not None

    def bury(self, **_):
        return self.process.code

    def kill(self):
        self.process.by_own_hand = True
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number):
        self.process.die(-number)


def installed(world, *, child):
    """Return a context in which the modules of sapwood live in ``world``; ``child(descriptor)`` is a worker process."""
    return _patched(_stand_ins(world, child))


@contextmanager
def _patched(changes):
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in changes:
            patch.setattr(module, name, value)
        yield


def _stand_ins(world, child):
    def monotonic():
        return world.now - world.process.host.monotonic_from

    def boot_time():
        return world.now - world.process.host.booted

    def wall():
        return EPOCH + world.now + world.process.host.wall_error

    def leave(code):
        world.process.by_own_hand = code == supervised.FENCED
        world.process.die(code)

    threads = SimpleNamespace(
        Thread=partial(Thread, world),
        Event=partial(Event, world),
        Lock=partial(Lock, world),
        Condition=partial(Condition, world),
        current_thread=lambda: "a thread",
        main_thread=lambda: "the main thread",
    )
    clock = SimpleNamespace(monotonic=monotonic, time=wall)
    system = SimpleNamespace(_exit=leave, getpid=lambda: world.process.pid, set_inheritable=lambda *_: None)
    names = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"{next(world.numbers):032x}"))
    network = SimpleNamespace(socketpair=partial(socketpair, world), gethostname=lambda: world.process.host.name)
    signals = SimpleNamespace(
        **{name: getattr(signal, name) for name in dir(signal) if name.startswith("SIG")},
        Signals=signal.Signals,
        signal=lambda number, handler: None,
        set_wakeup_fd=lambda *_, **__: -1,
    )
    yield from ((module, "threading", threads) for module in (pool, steward, supervised, worker))
    yield link, "Lock", threads.Lock
    yield from (
        (module, "time", clock) for module in (outage, pool, processes, steward, supervised, supervisor, worker)
    )
    yield from ((module, "boot_time", boot_time) for module in (maintenance, steward, supervised, supervisor, worker))
    yield outage, "random", world.random
    yield from ((module, "os", system) for module in (processes, supervised, supervisor, worker))
    yield from ((module, "uuid", names) for module in (maintenance, processes, supervisor))
    yield from ((module, "socket", network) for module in (processes, supervisor, worker))
    yield supervisor, "signal", signals
    yield supervisor, "selectors", SimpleNamespace(DefaultSelector=partial(Selector, world), EVENT_READ=1)
    yield processes, "Child", partial(Popen, world, child)
    yield processes, "tempfile", SimpleNamespace(TemporaryFile=world.temporary_file)
    yield worker, "SimpleQueue", partial(SimpleQueue, world)
