"""What the operating system tells of processes, and does for them."""

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

OVERRUN = 124
"""The exit code of a worker that ended for the sake of a job which could not be stopped otherwise."""

_usual_umask = -1

_STARTED_FOR = "SAPWOOD_STARTED_FOR"

_MANAGED = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


class Child(subprocess.Popen[bytes]):
    """A child whose pid, and the number of whose group, nobody else can get before :meth:`bury` is called."""

    def has_ended(self) -> bool:
        """Say whether it has ended."""
        if not hasattr(os, "waitid"):
            # On such a system its number may be another's from now on.
            return self.poll() is not None
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def send_signal(self, number: int) -> None:
        """Send it a signal; one that has ended does not hear it."""
        # Not as it is inherited: that would bury it meanwhile.
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def bury(self, *, with_group: bool) -> int:
        """Return the exit code of one that has ended; ``with_group``, end what it has left running in its group."""
        if with_group:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
        return self.wait()


def environment() -> dict[str, str]:
    """Return what a child inherits: not what a service manager said to this process alone."""
    return {name: value for name, value in os.environ.items() if name not in _MANAGED}


def environment_of_job() -> dict[str, str]:
    """Return what the process of an isolated job inherits: by this, its worker's supervisor knows what it started."""
    return environment() | {_STARTED_FOR: f"{os.getppid()}:{os.getpid()}"}


def end_started_for(worker: int) -> None:
    """End the isolated jobs of a child that has ended and is not buried, and what they have started.

    Their groups are not the child's. What has left the session, as a daemon does, is left alone.
    """
    mark, session = f"{os.getpid()}:{worker}", os.getsid(0)
    # Whatever is lacking, such as descriptors: no supervisor ends for it.
    with suppress(psutil.Error, OSError):
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(_STARTED_FOR) == mark and os.getsid(process.pid) == session:
                    process.kill()


def ending(code: int) -> str:
    """Return how a process ended, in words, from the code that its parent was given."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (", perhaps for want of memory" if -code == signal.SIGKILL else "")


def keep_files_private() -> None:
    """Have this process create files for its owner alone; its children do as they were told before."""
    global _usual_umask  # noqa: PLW0603 - it is the process's own, too
    before = os.umask(0o077)
    if _usual_umask < 0:
        _usual_umask = before


def usual_umask() -> int:
    """Return the umask that children are to have, -1 for that of this process."""
    return _usual_umask


def resident_memory(pid: int | None = None) -> int:
    """Return the bytes of memory that a process has in use, 0 where there is no such process."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def started_at(pid: int) -> str | None:
    """Return when a process was started, as text that is the same for nobody else; None where there is no such process.

    Linux counts ticks since the boot, which no change of the clock touches.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The second field is the command in parentheses, which may hold anything.
        return f"ticks {stat.rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        pass
    try:
        return f"seconds {psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return None


def boot_id() -> str:
    """Return what tells one boot of this machine from another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"booted {psutil.boot_time():.0f}"


@contextmanager
def stacks_on_quit() -> Iterator[None]:
    """Let SIGQUIT print the stacks of all threads on stderr, and end nothing."""
    try:
        faulthandler.register(signal.SIGQUIT, file=sys.__stderr__ or sys.stderr, all_threads=True, chain=False)
    except (AttributeError, ValueError, OSError):
        # There is no stderr with a descriptor, as in a notebook.
        yield
        return
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGQUIT)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent's main thread ends; on Linux only.

    Args:
        parent: the parent's pid: where it is gone already, this process ends at once.
    """
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only a worker under a supervisor needs it

        set_parent_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
