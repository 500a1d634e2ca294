"""Jobs that misbehave, and how each of them must end. A kind is one entry; the jobs' code runs in real workers."""

from msgspec import Struct

from sapwood.lifecycle import DAMAGED_ITS_WORKER, KILLED_ITS_WORKER

JOBS = '''
import ctypes
import resource
import subprocess

class Mute(Exception):
    def __str__(self):
        raise ValueError("no words")


def fork(code):
    """Fork; the child comes back from the job by raising."""
    child = os.fork()
    if child == 0:
        raise code
    return os.waitpid(child, 0)[1]


def grow():
    """Allocate more than a limit of the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3, hard))
    return bytearray(8 * 1024**3)


def endless():
    return endless()


def fail(error):
    raise error


KINDS = dict(
    sys_exit=lambda: sys.exit(3),
    sys_exit_0=lambda: sys.exit(0),
    keyboard_interrupt=lambda: fail(KeyboardInterrupt()),
    generator_exit=lambda: fail(GeneratorExit()),
    exit_0=lambda: os._exit(0),
    exit_3=lambda: os._exit(3),
    segv=lambda: ctypes.string_at(0),
    abort=os.abort,
    killed=lambda: os.kill(os.getpid(), signal.SIGKILL),
    exec=lambda: os.execv("/bin/sleep", ["sleep", "600"]),
    memory=grow,
    recursion=endless,
    descriptors=lambda: os.closerange(3, 4096),
    all_descriptors=lambda: os.closerange(0, 4096),
    replaced=lambda: [os.closerange(3, 64)] + [open(os.devnull) for _ in range(64)],
    mute=lambda: fail(Mute()),
    huge=lambda: fail(ValueError("x" * 100_000_000)),
    nul=lambda: fail(ValueError("a\\0b")),
    surrogate=lambda: fail(ValueError("a\\ud800b")),
    forked=lambda: fail(ValueError(fork(SystemExit(7)))),
)


class Poison(Job, name="poison"):
    def perform(self, number: int, kind: str) -> None:
        note(number, self.context.attempt, "begun")
        KINDS[kind]()
'''


class Kind(Struct, frozen=True):
    """How a kind of poison must end."""

    error: str
    """What the error of the failed job begins with."""

    deaths: int = 0
    """How many workers it may take along."""


DEATH = Kind(KILLED_ITS_WORKER, 3)
DAMAGE = Kind(DAMAGED_ITS_WORKER, 3)

ALL = {
    "sys_exit": Kind("SystemExit: 3"),
    "sys_exit_0": Kind("SystemExit: 0"),
    "keyboard_interrupt": Kind("KeyboardInterrupt"),
    "generator_exit": Kind("GeneratorExit"),
    "exit_0": DEATH,
    "exit_3": DEATH,
    "segv": DEATH,
    "abort": DEATH,
    "killed": DEATH,
    "exec": DEATH,
    "memory": Kind("MemoryError"),
    "recursion": Kind("RecursionError"),
    "descriptors": DAMAGE,
    "all_descriptors": DAMAGE,
    "replaced": DAMAGE,
    "mute": Kind("jobs.Mute: (its message cannot be read)"),
    "huge": Kind("ValueError: xxx"),
    "nul": Kind("ValueError: a\ufffdb"),
    "surrogate": Kind("ValueError: a\\ud800b"),
    # What the child came back with is its exit code, as the parent saw it.
    "forked": Kind(f"ValueError: {7 << 8}"),
}
