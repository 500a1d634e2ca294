"""Secrets are where they were put, and nowhere else: no log, no process list, no file, no message holds one."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, make_url

from background import Project, wait_until
from sapwood import Job, Sapwood, Worker
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.cli.main import run
from sapwood.errors import SapwoodError
from sapwood.executor import failure_of
from sapwood.record import JobState
from sapwood.wording import masked

ARGUMENT, LOCAL, ERROR_URL, ENVIRONMENT, PASSWORD = (f"CANARY{name}7d1f" for name in ("arg", "loc", "url", "env", "pw"))
CANARIES = (ARGUMENT, LOCAL, ERROR_URL, ENVIRONMENT, PASSWORD)

JOBS = f"""
class Canary(Job, name="canary"):
    def perform(self, number: int, how: str, secret: str) -> None:
        local = "CANARY" + "loc7d1f" + secret
        note(number, self.context.attempt, how)
        if how == "fail":
            raise ValueError("it failed: postgresql://user:{ERROR_URL}@host/db")
        if how == "retry" and self.context.attempt == 1:
            raise ValueError("once more, password={ERROR_URL}")
        if how == "crash":
            os._exit(7)
        if how == "exit":
            sys.exit(3)
        if how == "log":
            self.logger.info("connecting to mysql://user:{ERROR_URL}@host/db\\nERROR a forged line \\x1b[2J")

    def backoff(self, attempt: int) -> float:
        raise RuntimeError("no backoff: x://u:{ERROR_URL}@h")
"""


class Witness:
    """Looks at what everybody on the machine can see of the processes of a project."""

    def __init__(self, project):
        self._project = project
        self._over = threading.Event()
        self.seen = set()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self):
        while not self._over.wait(0.05):
            self.look()

    def look(self):
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if self._project.folder == Path(process.cwd()):
                    self.seen.add(" ".join(process.cmdline()) + process.name())

    def end(self):
        self._over.set()
        self._thread.join()
        return "\n".join(self.seen)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, database_url, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shop.db"
    plain = make_url(database_url("postgresql"))
    engine = create_engine(plain, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        role = f"canary_{os.getpid()}"
        connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    engine.dispose()
    return plain.set(username=role, password=PASSWORD).render_as_string(hide_password=False)


def received(notices):
    """Return all that was said to the service manager."""
    told = []
    with suppress(BlockingIOError):
        while True:
            told.append(notices.recv(65_536).decode())
    notices.close()
    return "\n".join(told)


def test_no_secret_is_seen_while_workers_start_run_crash_restart_and_stop(url, tmp_path, monkeypatch):  # noqa: PLR0915 - a story
    monkeypatch.setenv("CANARY_TOKEN", ENVIRONMENT)
    monkeypatch.setenv("DATABASE_URL", f"x://u:{PASSWORD}@h")
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(str(tmp_path / "notify"))
    notices.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    project = Project(tmp_path / "shop", url, more=JOBS)
    witness = Witness(project)
    told = []

    def call(*words):
        done = project.call(*words)
        told.append(done.stdout + done.stderr)
        return done

    try:
        project.start("-n", "2", "-v")
        for number, how in enumerate(["fail", "retry", "log", "ok"]):
            project.enqueue("canary", number, how=how, secret=ARGUMENT, max_attempts=1 + (how == "retry"))
        wait_until(lambda: project.states() == {JobState.FAILED: 1}, seconds=60, about=project.log())
        # Only now: who dies takes its neighbours along.
        project.enqueue("canary", 5, how="exit", secret=ARGUMENT, max_attempts=1)
        wait_until(lambda: project.states() == {JobState.FAILED: 2}, seconds=60, about=project.log())
        project.enqueue("canary", 6, how="crash", secret=ARGUMENT, max_attempts=1)
        wait_until(lambda: project.states() == {JobState.FAILED: 3}, seconds=60, about=project.log())
        for words in (["status", "--json"], ["restart"], ["clear", "--dry-run", "-v"], ["stop", "-v"]):
            call(*words)
        # Who asks for a job is shown its arguments; passwords nobody is shown.
        shown = project.call("show", str(project.adapter.jobs()[0].id)).stdout
        assert ARGUMENT in shown
        assert "ValueError: it failed: postgresql://user:***@host/db" in shown
        told.append(shown.replace(ARGUMENT, ""))
    finally:
        seen = witness.end()
        project.end()
    told.append(received(notices))
    files = [path for path in (project.folder / ".sapwood").iterdir() if path.is_file()]
    places = {path.name: path.read_text() for path in files} | {"processes": seen, "told": "\n".join(told)}
    assert "sapwood worker" in seen
    assert "ValueError: it failed: postgresql://user:***@host/db" in places["worker.log"]
    assert "\nERROR a forged" not in places["worker.log"]
    assert "\x1b" not in places["worker.log"]
    assert [(place, one) for place, text in places.items() for one in CANARIES if one in text] == []


def test_what_a_failed_try_leaves_in_the_database_has_no_values_of_local_variables(adapter):
    class Fails(Job, name="canary.fails", max_attempts=1):
        def perform(self, secret: str) -> None:
            doubled = secret * 2
            raise ValueError("no reason", len(doubled))

    Sapwood(adapter)
    handle = Fails.perform_later(ARGUMENT)
    Worker(Sapwood(adapter)).workoff()
    [attempt] = adapter.attempts(handle.id)
    assert "doubled = secret * 2" not in (attempt.error + attempt.traceback)
    assert ARGUMENT not in attempt.error + attempt.traceback
    assert "raise ValueError" in attempt.traceback


# --- passwords of databases -----------------------------------------------------------------------------------------

URLS = [
    f"postgresql://user:{PASSWORD}@127.0.0.1:1/shop",
    f"postgresql+psycopg://user:{PASSWORD}@127.0.0.1:1/shop",
    f"postgresql://user@127.0.0.1:1/shop?password={PASSWORD}",
    f"postgresql://user@127.0.0.1:1/shop?sslpassword={PASSWORD}&sslmode=disable",
    f"postgresql://user@127.0.0.1:1/shop?passfile=/nowhere/{PASSWORD}",
    f"postgresql://user:{PASSWORD}%40%2F%3A@127.0.0.1:1/shop",
    f"postgresql://user:{PASSWORD}@127.0.0.1:1/shop?nonsense=1",
    f"postgresql+asyncpg://user:{PASSWORD}@127.0.0.1:1/shop?ssl=odd",
    f"mysql://user:{PASSWORD}@127.0.0.1:1/shop",
    f"mysql+pymysql://user:{PASSWORD}@127.0.0.1:1/shop?ssl_key_password={PASSWORD}",
    f"mysql+mysqlconnector://user:{PASSWORD}@127.0.0.1:1/shop?password={PASSWORD}",
    f"mariadb://user:{PASSWORD}@[::1]:1/shop",
    f"oracle://user:{PASSWORD}@host/shop",
    f"postgresql://user:x/{PASSWORD}@127.0.0.1/shop",
    f"postgresql://user:x:{PASSWORD}@127.0.0.1:1/shop",
    f"postgresql://user:x@{PASSWORD}@127.0.0.1:1/shop",
    f"postgresql://user@host:{PASSWORD}/shop",
    f"postgresql:user:{PASSWORD}@host/shop",
    f"{PASSWORD}",
]


@pytest.mark.parametrize("url", URLS, ids=lambda url: url.replace(PASSWORD, "…"))
def test_a_database_that_cannot_be_had_does_not_tell_its_password(url, caplog, monkeypatch, capsys, tmp_path):
    def chain(error):
        while error is not None:
            yield f"{error} {error!r}"
            error = error.__cause__ or error.__context__

    told = ""
    try:
        app = Sapwood(url)
        told = f"{app!r} {app.adapter()!r} {app.adapter().describe()} {app.adapter()._dialect!r}"
        app.adapter().counts()
    except SapwoodError as error:
        told += " ".join(chain(error)) + str(failure_of(error))
    else:
        pytest.fail("there is no such database")
    assert PASSWORD not in told + caplog.text

    (tmp_path / "canary_app.py").write_text(f"import os\nfrom sapwood import Sapwood\napp = Sapwood({url!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("SAPWOOD_APP", "canary_app:app")
    for words in (["list", "-v"], ["list", "--json"], ["migrate", "--check", "-v"], ["workoff", "-v"]):
        sys.modules.pop("canary_app", None)
        assert run(words) in {3, 4}
        out, err = capsys.readouterr()
        # The source line of the application is shown by -v alone, and its URL masked where it is one.
        unmasked = [line for line in (out + err).splitlines() if PASSWORD in line and "Sapwood(" not in line]
        assert unmasked == []
        if "://user:" in url and "x@" not in url:
            assert PASSWORD not in masked(err)


def test_a_password_that_the_server_refuses_is_not_told(postgresql_url, mysql_url, caplog):
    for plain in (postgresql_url, mysql_url):
        for change in ({"password": PASSWORD, "username": "nobody"}, {"database": "nothing"}):
            url = make_url(plain).set(**change)
            with pytest.raises(SapwoodError) as caught:
                SQLAlchemyAdapter(url).counts()
            assert PASSWORD not in f"{caught.value}{caught.value!r}{caught.value.__cause__}{caplog.text}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x postgresql://user:secret@host/db y", "x postgresql://user:***@host/db y"),
        ("postgresql://user:se:cr@et@host/db", "postgresql://user:***@host/db"),
        ("redis://:secret@host", "redis://:***@host"),
        ("host=h password=secret dbname=d", "host=h password=*** dbname=d"),
        ("h?sslpassword=secret&a=1", "h?sslpassword=***&a=1"),
        ("https://host/path?x=1", "https://host/path?x=1"),
        ("http://host:8080/path", "http://host:8080/path"),
        ("user@host: no", "user@host: no"),
    ],
)
def test_passwords_are_masked_and_nothing_else(text, shown):
    assert masked(text) == shown


def test_masking_takes_no_longer_for_hostile_texts():
    program = (
        "from sapwood.wording import masked, escaped\n"
        "for text in ('://' * 30_000, '://u:' * 20_000, '://u:x' * 20_000, 'a' * 100_000, 'password=' * 10_000):\n"
        "    masked(text), escaped(text)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
