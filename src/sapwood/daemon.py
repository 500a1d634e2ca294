"""A supervisor in the background: one folder says whether it runs and who it is, and is the door to it.

The folder belongs to one user, who alone may look into it. A lock on a file in it is held for as long as the supervisor
lives: only the lock says that it does. The file's text says who holds it, and is believed only where the pid, the start
time of that process, the boot of the machine and the owner of the lock all agree; so no stranger is ever signalled.
"""

import fcntl
import os
import select
import signal
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from sapwood.errors import SapwoodError
from sapwood.host import boot_id, started_at

_LOCK = "supervisor.lock"
_SOCKET = "control"
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LONGEST_PATH = 100
_LARGEST = 16 * 1024 * 1024


class DaemonError(SapwoodError):
    """Something about the supervisor in the background."""


class NotRunning(DaemonError):
    """There is none."""


class AlreadyRunning(DaemonError):
    """There is one."""


class NotTrusted(DaemonError):
    """What is found there may not be what it says: nothing was touched."""


class NoAnswer(DaemonError):
    """It lives, and does not answer."""


class Identity(Struct, frozen=True):
    """Which process a supervisor is: not only its pid, which another may have by now."""

    pid: int
    started: str
    boot: str
    release: str

    @staticmethod
    def own(release: str) -> "Identity":
        """Return the identity of this process."""
        return Identity(os.getpid(), started_at(os.getpid()) or "", boot_id(), release)

    @property
    def is_alive(self) -> bool:
        """Whether that very process is there."""
        return self.pid > 1 and self.boot == boot_id() and started_at(self.pid) == self.started


class StateFolder:
    """The folder of one supervisor.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: int | None = None

    # --- the supervisor's side --------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the folder, for its owner only.

        Raises:
            NotTrusted: it is there and is somebody else's, or open to others.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True)
            # Nobody wants it among the files of the project.
            (self.path / ".gitignore").write_text("*\n", encoding="ascii")
        except FileExistsError:
            self._check()
        except OSError as error:
            raise DaemonError(
                f"cannot create {self.path}", why=error.strerror or str(error), mend="choose another by --state-dir"
            ) from error

    def hold(self, identity: Identity, *, inherited: int | None = None) -> None:
        """Take the lock for as long as this process lives, and say who holds it.

        Args:
            identity: this process.
            inherited: the descriptor of the lock, where this process had it before it became what it is.

        Raises:
            AlreadyRunning: another process holds it.
            NotTrusted: the file is not what it should be.
        """
        fd = inherited
        if fd is None:
            fd = self._open(create=True)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                raise AlreadyRunning(
                    "a supervisor runs here already", why=str(self.path), mend="sapwood restart, or sapwood stop"
                ) from None
        os.set_inheritable(fd, False)
        os.ftruncate(fd, 0)
        os.pwrite(fd, msgspec.json.encode(identity), 0)
        self._held = fd

    def hand_over(self) -> int:
        """Let the program that is about to take over this process keep the lock; return its descriptor."""
        assert self._held is not None  # noqa: S101 - only who holds it can hand it over
        os.set_inheritable(self._held, True)
        return self._held

    def let_go(self) -> None:
        """Let go of the lock."""
        if self._held is not None:
            with suppress(OSError):
                (self.path / _SOCKET).unlink()
            os.ftruncate(self._held, 0)
            os.close(self._held)
            self._held = None

    def listen(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answer requests, each in a thread of its own, for as long as the process lives."""
        with suppress(FileNotFoundError):
            (self.path / _SOCKET).unlink()
        door = socket.socket(socket.AF_UNIX)
        with self._reachable() as address:
            door.bind(address)
        (self.path / _SOCKET).chmod(0o600)
        door.listen()
        threading.Thread(target=_serve, args=(door, answer), name="sapwood-control", daemon=True).start()

    # --- from outside -----------------------------------------------------------------------------------------------

    def find(self) -> Identity:
        """Return the supervisor that holds the lock.

        Raises:
            NotRunning: nobody holds it.
            NotTrusted: somebody does, and is not who the file says.
        """
        if not self.path.is_dir():
            raise NotRunning(f"no supervisor runs in {self.path}", mend="sapwood start")
        self._check()
        try:
            fd = self._open(create=False)
        except FileNotFoundError:
            raise NotRunning(f"no supervisor runs in {self.path}", mend="sapwood start") from None
        try:
            if _lock_is_free(fd):
                raise NotRunning(f"no supervisor runs in {self.path}", mend="sapwood start")
            return self._believed(fd)
        finally:
            os.close(fd)

    def signal(self, identity: Identity, number: int) -> bool:
        """Send a signal to that very process; False where it has ended meanwhile."""
        if not hasattr(os, "pidfd_open"):
            if identity.is_alive:
                os.kill(identity.pid, number)
                return True
            return False
        try:
            handle = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return False
        try:
            # The handle is of one process for ever; now see whether it is the right one.
            if not identity.is_alive:
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def wait_for_end(self, identity: Identity, seconds: float) -> bool:
        """Wait until that process has ended; False where it has not in that time."""
        deadline = time.monotonic() + seconds
        handle = None
        with suppress(OSError, AttributeError):
            handle = os.pidfd_open(identity.pid)
        try:
            while identity.is_alive and not _is_zombie(identity.pid):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if handle is None:
                    threading.Event().wait(min(left, 0.05))
                else:
                    select.select([handle], [], [], left)
        finally:
            if handle is not None:
                os.close(handle)
        return True

    def ask(self, request: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Ask the supervisor, and return its answer.

        Raises:
            NoAnswer: none came within ``seconds``.
        """
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(seconds)
            try:
                with self._reachable() as address:
                    door.connect(address)
                door.sendall(msgspec.json.encode(request) + b"\n")
                answer = msgspec.json.decode(_line(door), type=dict[str, Any])
            except (OSError, msgspec.DecodeError, RecursionError) as error:
                raise NoAnswer(
                    "the supervisor does not answer",
                    why=str(error),
                    mend="it may be frozen, or just ending: sapwood status, or sapwood stop --now",
                ) from error
        return answer

    # --- within -----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        status = self.path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise NotTrusted(
                f"{self.path} is not a folder of this user alone",
                why="whoever can write there could have other processes signalled",
                mend=f"chmod 700 {self.path}, or choose another folder by --state-dir",
            )

    def _open(self, *, create: bool) -> int:
        path = self.path / _LOCK
        try:
            fd = os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NotTrusted(
                f"{path} is no file of ours", why=error.strerror or str(error), mend="remove it"
            ) from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
            os.close(fd)
            raise NotTrusted(f"{path} is no plain file of this user", mend="remove it")
        return fd

    def _believed(self, fd: int) -> Identity:
        try:
            identity = msgspec.json.decode(os.pread(fd, 4096, 0), type=Identity)
        except (msgspec.DecodeError, RecursionError):
            identity = None
        holder = _lock_holder(fd)
        if identity is None or not identity.is_alive or (holder is not None and holder != identity.pid):
            raise NotTrusted(
                f"{self.path / _LOCK} does not say who holds it",
                why=f"the lock is held by {holder or 'some process'}, and the file names {identity and identity.pid}",
                mend="nothing was signalled; end that process yourself, if it is a supervisor",
            )
        return identity

    @contextmanager
    def _reachable(self) -> Iterator[str]:
        """Give the path of the socket; one that is too long for the system goes by a handle of the folder."""
        path = str(self.path / _SOCKET)
        if len(os.fsencode(path)) <= _LONGEST_PATH or sys.platform != "linux":
            yield path
            return
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{_SOCKET}"
        finally:
            os.close(folder)


def _lock_is_free(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.lockf(fd, fcntl.LOCK_UN)
    return True


def _lock_holder(fd: int) -> int | None:
    """Return the pid of the process that holds the lock, None where the system does not say."""
    if sys.platform != "linux":
        return None
    asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = struct.unpack("hhqqi", fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return answer[4] if answer[0] != fcntl.F_UNLCK and answer[4] > 0 else None


def _is_zombie(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] == "Z"
        )
    except (OSError, IndexError):
        return False


def _serve(door: socket.socket, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    while True:
        try:
            guest, _ = door.accept()
        except OSError:
            return
        threading.Thread(target=_converse, args=(guest, answer), name="sapwood-request", daemon=True).start()


def _converse(guest: socket.socket, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    # Whatever a guest sends, it is the guest's own trouble.
    with guest, suppress(OSError, ValueError, msgspec.MsgspecError, RecursionError):
        guest.settimeout(10)
        request = msgspec.json.decode(_line(guest), type=dict[str, Any])
        guest.settimeout(None)
        guest.sendall(msgspec.json.encode(answer(request)) + b"\n")


def _line(end: socket.socket) -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        more = end.recv(65_536)
        if not more or len(read) > _LARGEST:
            raise OSError("it hung up")
        read += more
    return read
