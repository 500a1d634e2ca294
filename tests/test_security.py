"""Promises of SECURITY.md that no other test proves: what the code may do, who may read its files, whom it believes."""

import ast
import os
import socket
import stat
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

import pytest

from background import Project, wait_until
from sapwood import Sapwood
from sapwood.adapters.locks import Ticket
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.cli.main import run
from sapwood.cli.start import _opened
from sapwood.daemon import NoAnswer, StateFolder
from sapwood.errors import SapwoodError, UnsupportedStore
from sapwood.lifecycle import KILLED_ITS_WORKER
from sapwood.link import Garbled, Link
from sapwood.record import JobState

SOURCE = Path(__file__).parent.parent / "src" / "sapwood"
MODULES = {str(file.relative_to(SOURCE)): ast.parse(file.read_text()) for file in sorted(SOURCE.rglob("*.py"))}

# --- what the code may do -------------------------------------------------------------------------------------------

FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "jsonpickle", "code", "codeop"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "getoutput", "getstatusoutput"}

IMPORTS = {
    "__init__.py": "our own modules, by a table",
    "adapters/joining.py": "drivers, by a table",
    "app.py": "what the application names in Sapwood(imports=...)",
    "cli/discovery.py": "what --app, the environment or pyproject.toml name",
    "cli/main.py": "our own commands, by a table",
    "adapters/sqlalchemy.py": "the driver, by a table",
}
PROCESSES = {
    "cli/processes.py": "our own interpreter with our own module",
    "cli/start.py": "the same",
    "cli/supervise.py": "the same, in this process's place",
    "processes.py": "the same",
    "isolation.py": "the same, for one job",
}
TEXTS = {
    "adapters/tables.py": "conditions of indexes, constant",
    "adapters/dialects/postgresql.py": "names by the one quoting function, all else constant or bound",
    "adapters/dialects/merging.py": "the same",
    "adapters/dialects/mysql.py": "the same",
    "adapters/dialects/server.py": "what the dialect says of itself",
    "adapters/dialects/sqlite.py": "one of two words",
    "adapters/migrations.py": "names by the one quoting function",
}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            yield name, function, node


@pytest.mark.parametrize("module", MODULES)
def test_no_module_can_execute_what_it_reads(module):
    for node in ast.walk(MODULES[module]):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not FORBIDDEN_MODULES & {name.partition(".")[0] for name in names}
    for name, function, node in calls(MODULES[module]):
        built = name == "compile" and isinstance(function, ast.Attribute)
        assert name not in FORBIDDEN_CALLS or built, f"{module}:{node.lineno} {name}"
        assert not [key for key in node.keywords if key.arg == "shell"], f"{module}:{node.lineno}"
        assert name != "import_module" or module in IMPORTS, f"{module}:{node.lineno}"
        starts = name in {"Popen", "check_output", "check_call"} or name.startswith(
            ("execv", "execl", "spawn", "posix_spawn")
        )
        assert not starts or module in PROCESSES, f"{module}:{node.lineno}"


def is_constant(node):
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.IfExp):
        return is_constant(node.body) and is_constant(node.orelse)
    return isinstance(node, ast.Name) and node.id.isupper()


def built_texts(tree):
    """Return where a text of SQL is not constant."""
    for name, _, node in calls(tree):
        if name in {"text", "exec_driver_sql", "literal_column", "DDL", "execute"} and node.args:
            first = node.args[0]
            made = isinstance(first, ast.JoinedStr | ast.BinOp) or (
                isinstance(first, ast.Call) and getattr(first.func, "attr", "") == "format"
            )
            if made or (name != "execute" and not is_constant(first)):
                yield node.lineno


@pytest.mark.parametrize("module", MODULES)
def test_texts_of_sql_are_constant_but_where_names_are_quoted(module):
    assert module in TEXTS or module == "adapters/dialects/base.py" or not list(built_texts(MODULES[module]))


def test_the_check_of_texts_finds_what_it_is_for():
    for bad in (
        'c.exec_driver_sql(f"DROP {x}")',
        'text("a" + b)',
        'c.execute("a %s" % b)',
        "text(said)",
        'text("{}".format(x))',
    ):
        assert list(built_texts(ast.parse(bad))), bad
    assert not list(built_texts(ast.parse('text("SELECT 1")')))


NO_NAMES = [
    "jobs; DROP TABLE users",
    'a"b',
    "a`b",
    "a'b",
    "a.b",
    "a b",
    "1a",
    "a\0b",
    "ééé",
    "x" * 64,
    "a--",
    "%s",
    "{x}",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_prefix_or_schema_that_is_no_plain_name_is_refused(name):
    with pytest.raises(SapwoodError):
        SQLAlchemyAdapter("sqlite://", prefix=name)
    with pytest.raises(SapwoodError):
        SQLAlchemyAdapter("sqlite://", schema=name)


# --- files ----------------------------------------------------------------------------------------------------------


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def permissive():
    """Let whatever is created be open to all, unless somebody sees to it."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_what_a_worker_creates_is_for_its_owner_alone(tmp_path, permissive):
    store = SQLAlchemyAdapter(f"sqlite:///{tmp_path}/jobs.db")
    store.migrate()
    from conftest import worker_record

    worker = worker_record()
    store.register(worker)
    store.page(worker.id, slots=3)
    found = {path: mode(path) for path in tmp_path.rglob("*")}
    assert {path.name for path in found} >= {"jobs.db", "jobs.db-wal", "jobs.db.workers", "turn.ticket", worker.id}
    assert {path.name: oct(bits) for path, bits in found.items() if bits & 0o077} == {}
    store.unregister(worker.id)
    store.close()


def test_a_database_that_is_there_keeps_its_mode(tmp_path, permissive):
    file = tmp_path / "jobs.db"
    file.touch(0o640)
    SQLAlchemyAdapter(f"sqlite:///{file}").migrate()
    assert mode(file) == 0o640


@pytest.mark.parametrize("how", ["open to all", "a link", "a file", "another's"])
def test_a_folder_of_locks_that_others_could_have_made_is_refused(tmp_path, how):
    folder, elsewhere = tmp_path / "jobs.db.workers", tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    match how:
        case "open to all":
            folder.mkdir()
            folder.chmod(0o777)
        case "a link":
            folder.symlink_to(elsewhere)
        case "a file":
            folder.touch()
        case _:
            if os.geteuid():
                pytest.skip("only root can give files away")
            folder.mkdir(0o700)
            os.chown(folder, 12345, -1)
    with pytest.raises(UnsupportedStore, match="is not a folder of this user"):
        SQLAlchemyAdapter(f"sqlite:///{tmp_path}/jobs.db").migrate()
    assert list(elsewhere.iterdir()) == []


def test_a_ticket_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "folder").mkdir(0o700)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "folder" / "turn.ticket").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        Ticket(tmp_path / "folder")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("how", ["a link", "a pipe", "a folder", "another's"])
def test_a_log_is_written_to_no_file_of_others(tmp_path, how):
    log, victim = tmp_path / "worker.log", tmp_path / "victim"
    victim.write_text("mine")
    match how:
        case "a link":
            log.symlink_to(victim)
        case "a pipe":
            os.mkfifo(log)
        case "a folder":
            log.mkdir()
        case _:
            if os.geteuid():
                pytest.skip("only root can give files away")
            log.touch()
            os.chown(log, 12345, -1)
    with pytest.raises(SapwoodError):
        _opened(log)
    assert victim.read_text() == "mine"


# --- whom it believes -----------------------------------------------------------------------------------------------

GARBAGE = [
    b"\n",
    b"x\n",
    b"{}\n",
    b"[]\n",
    b"null\n",
    b'{"type": "Stop", "x": ' + b"[" * 5000 + b"\n",
    b'{"type": "Welcome"}\n',
    b'{"type": "os.system"}\n',
    b'{"type": "Report", "running": 5, "done": 1, "failed": 0}\n',
    b'{"type": "Report", "running": [], "done": 1e999, "failed": 0}\n',
    b"\xff\xfe\x00\n",
    b"\x80\x04cos\nsystem\n",
    b"A" * (2 << 20),
]


@pytest.mark.parametrize("said", GARBAGE, ids=lambda said: repr(said[:20]))
def test_what_is_no_message_is_told_apart(said):
    ours, theirs = socket.socketpair()
    with theirs:
        link = Link(ours)

        def speak():
            with suppress(OSError):
                theirs.sendall(said)

        speaker = threading.Thread(target=speak, daemon=True)
        speaker.start()
        with pytest.raises(Garbled):
            deque(iter(link.receive, None), maxlen=0)
        link.close()
        speaker.join(10)


REQUESTS = [
    *GARBAGE[:-1],
    b'{"verb": "restart"}\n',
    b'{"verb": "restart", "plan": "{", "patience": 1}\n',
    b'{"verb": "restart", "plan": "\\ud800", "patience": 1}\n',
    b'{"verb": "restart", "plan": "{}", "patience": true}\n',
    b'{"verb": ["restart"]}\n',
    b'{"verb": {"a": 1}}\n',
    b'{"verb": "stop", "groups": [["x"], {}, null]}\n',
    b'{"verb": "stop", "groups": "all"}\n',
    b'{"verb": "status", "verb": "options"}\n',
    b'{"verb": "exec"}\n',
]

GARBLING = """
class Garble(Job, name="garble"):
    def perform(self, number: int) -> None:
        import socket
        note(number, self.context.attempt, "begun")
        for descriptor in range(3, 64):
            try:
                end = socket.socket(fileno=os.dup(descriptor))
                if end.family == socket.AF_UNIX:
                    end.sendall(b"garbage\\\\n" + b"[" * 5000 + b"\\\\n")
            except OSError:
                pass
        threading.Event().wait(60)
"""


def ask(state, request):
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(30)
        door.connect(str(state.path / "control"))
        door.sendall(request)
        door.shutdown(socket.SHUT_WR)
        while door.recv(65_536):
            pass


def umask_of(pid):
    file = Path(f"/proc/{pid}/status")
    return [line.split()[1] for line in file.read_text().splitlines() if line.startswith("Umask")]


def test_a_supervisor_survives_garbage_at_its_door_and_on_a_link_and_its_files_are_its_own(tmp_path, permissive):
    project = Project(tmp_path / "shop", f"sqlite:///{tmp_path}/shop.db", more=GARBLING)
    try:
        project.start("-n", "1")
        supervisor = project.supervisor()
        state = StateFolder(project.folder / ".sapwood")
        for request in REQUESTS:
            ask(state, request)
        assert project.status()["supervisor"]["state"] == "ready"
        found = {path.name: mode(path) for path in [state.path, *state.path.iterdir()]}
        assert found[".sapwood"] == 0o700
        assert (found["control"], found["supervisor.lock"], found["worker.log"]) == (0o600, 0o600, 0o600)
        if Path("/proc/self/status").exists():
            # The umask is the supervisor's alone: what jobs write is as it was.
            (worker,) = project.workers()
            assert (umask_of(supervisor), umask_of(worker.pid)) == (["0077"], ["0000"])

        project.enqueue("garble", 1, max_attempts=1)
        wait_until(lambda: "could not be understood" in str(project.status()), seconds=60)
        assert project.counted("begun") > 0
        assert project.supervisor() == supervisor
        # It is to blame, and would do so again.
        wait_until(lambda: set(project.states()) == {JobState.FAILED}, seconds=60)
        assert [job.last_error for job in project.adapter.jobs()] == [KILLED_ITS_WORKER]
        project.enqueue("effect", 2)
        wait_until(lambda: project.counted("done"), seconds=60)
        assert "Traceback" not in project.log()
    finally:
        project.end()


def test_an_answer_that_is_garbage_is_no_answer(tmp_path):
    folder = StateFolder(tmp_path / "state")
    folder.prepare()
    for said in (b"garbage\n", b"[1]\n", b"[" * 5000 + b"\n", b"\xff\n", b""):
        door = socket.socket(socket.AF_UNIX)
        door.bind(str(folder.path / "control"))
        door.listen()

        def serve(door=door, said=said):
            guest, _ = door.accept()
            with guest:
                guest.recv(1000)
                guest.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NoAnswer):
            folder.ask({"verb": "status"}, seconds=10)
        thread.join()
        door.close()
        (folder.path / "control").unlink()


def test_a_plan_does_not_show_its_passwords():
    from sapwood.plan import Plan

    plan = Plan(
        app="a", directory="/", release="1", command=[], workers=[], stores={"default": {"database": "x://u:CANARY@h"}}
    )
    assert "CANARY" not in repr(plan)
    assert "CANARY" in plan.encoded().decode()


def test_no_secret_of_an_app_is_in_what_generate_service_writes(tmp_path, monkeypatch, capsys):
    code = (
        "from sapwood import Sapwood\napp = Sapwood('postgresql://user:CANARY%40@localhost/shop?sslpassword=CANARY')\n"
    )
    (tmp_path / "canary_app.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("SAPWOOD_APP", "canary_app:app")
    monkeypatch.setenv("DATABASE_URL", "x://u:CANARY@h")
    for manager in ("systemd", "supervisor", "docker", "procfile", "kubernetes"):
        assert run(["generate", "service", manager]) == 0
    told = capsys.readouterr()
    assert "CANARY" not in told.out + told.err
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix not in {".py", ".pyc"}]
    assert len(written) >= 5
    assert [file for file in written if "CANARY" in file.read_text()] == []


def test_the_name_of_a_database_steers_no_terminal(tmp_path):
    assert repr(Sapwood(f"sqlite:///{tmp_path}/a\x1b\u202e.db")).isprintable()
