import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from sapwood.cli.work import work_command
from sapwood.health import Probe

FILES = {
    "systemd": "deploy/sapwood.service",
    "supervisor": "deploy/sapwood.supervisor.conf",
    "docker": "Dockerfile.worker",
    "procfile": "Procfile",
    "kubernetes": "deploy/sapwood-worker.yaml",
}
MANAGERS = pytest.mark.parametrize("manager", FILES)


@pytest.fixture
def written(sapwood, project):
    """Have the file for a manager written, and return its text."""

    def write(manager, *words):
        result = sapwood("generate", "service", manager, *words)
        assert result.code == 0, result
        return (project / FILES[manager]).read_text()

    return write


def command(manager, text):
    """Return the command line in a file."""
    if manager == "systemd":
        (line,) = re.findall(r"(?m)^ExecStart=(.*)$", text)
        return shlex.split(line)
    if manager == "supervisor":
        (line,) = re.findall(r"(?m)^command=(.*)$", text)
        return shlex.split(line)
    if manager == "procfile":
        return shlex.split(text.partition(": exec ")[2])
    if manager == "docker":
        return json.loads(re.findall(r"(?m)^CMD (.*)$", text)[-1])
    return yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0]["command"]


# --- all of them ----------------------------------------------------------------------------------------------------


@MANAGERS
def test_a_service_is_written_once_and_then_kept(sapwood, project, manager):
    first = sapwood("generate", "service", manager)
    assert (first.code, first.err) == (0, "")
    assert f"create  {FILES[manager]}" in first.out
    assert "\nNext:  " in first.out
    text = (project / FILES[manager]).read_text()
    second = sapwood("generate", "service", manager)
    assert second.code == 0
    assert f"keep    {FILES[manager]}" in second.out
    assert (project / FILES[manager]).read_text() == text


@MANAGERS
def test_what_is_there_and_differs_is_written_over_only_by_force(sapwood, project, written, manager):
    before = written(manager)
    refused = sapwood("generate", "service", manager, "-n", "3")
    assert refused.code == 6
    assert "--force" in refused.err
    assert (project / FILES[manager]).read_text() == before
    assert "-n 3" in " ".join(command(manager, written(manager, "-n", "3", "--force")))


@MANAGERS
def test_a_dry_run_writes_nothing(sapwood, project, manager):
    result = sapwood("generate", "service", manager, "--dry-run")
    assert result.code == 0
    assert f"create  {FILES[manager]}" in result.out
    assert not (project / FILES[manager]).exists()


@MANAGERS
def test_the_command_in_a_file_says_what_was_asked_for_and_is_understood(written, manager):
    text = written(manager, "-n", "email:2,default:1", "-c", "7", "--shutdown-timeout", "1m", "--probe-port", "9000")
    words = command(manager, text)
    began = {"systemd": sys.executable, "supervisor": sys.executable, "procfile": "sapwood"}.get(manager, "python")
    assert words[0] == began
    assert words[words.index("--app") :][:3] == ["--app", "jobs:app", "work"]
    said = work_command.make_context("work", words[words.index("work") + 1 :]).params
    assert (said["spec"], said["concurrency"], said["shutdown_timeout"]) == ("email:2,default:1", 7, 60)
    assert said["probe_port"] == ("0.0.0.0" if manager == "kubernetes" else "127.0.0.1", 9000)


@MANAGERS
def test_there_is_always_a_supervisor(written, manager):
    words = command(manager, written(manager))
    said = work_command.make_context("work", words[words.index("work") + 1 :]).params
    assert said["spec"] == "1"


@MANAGERS
@pytest.mark.parametrize(
    ("group", "spec"), [("WorkerGroup(queues=['email', 'sms'])", "email+sms:1"), ("WorkerGroup(concurrency=9)", "1")]
)
def test_a_single_worker_of_the_app_is_named_as_the_app_has_it(project, written, manager, group, spec):
    app = project / "jobs" / "__init__.py"
    text = app.read_text().replace("import Sapwood", "import Sapwood, WorkerGroup")
    app.write_text(text.replace("imports=", f"workers=[{group}], imports="))
    words = command(manager, written(manager))
    assert words[words.index("-n") + 1] == spec


def test_queues_of_the_settings_are_not_named_twice(written, monkeypatch):
    monkeypatch.setenv("SAPWOOD_QUEUES", "email")
    assert " -n 1 " in written("systemd")


@MANAGERS
def test_the_apps_worker_groups_are_left_to_the_app(sapwood, project, written, manager):
    app = project / "jobs" / "__init__.py"
    text = app.read_text().replace("import Sapwood", "import Sapwood, WorkerGroup")
    app.write_text(text.replace("imports=", "workers=[WorkerGroup(count=2)], imports="))
    assert "-n" not in command(manager, written(manager))


@MANAGERS
def test_the_manager_waits_longer_than_running_jobs_are_given(written, manager):
    text = written(manager, "--shutdown-timeout", "90")
    wait = {
        "systemd": r"TimeoutStopSec=(\d+)",
        "supervisor": r"stopwaitsecs=(\d+)",
        "docker": r"--stop-timeout (\d+)",
        "kubernetes": r"terminationGracePeriodSeconds: (\d+)",
    }
    if manager in wait:
        (seconds,) = re.findall(wait[manager], text)
        assert 100 <= int(seconds) <= 110


@MANAGERS
def test_a_name_tells_services_of_one_project_apart(sapwood, project, manager):
    sapwood("generate", "service", manager)
    result = sapwood("generate", "service", manager, "--name", "mail-2", "-n", "email:1")
    assert result.code == 0
    assert "mail-2" in result.out
    if manager == "procfile":
        assert len((project / "Procfile").read_text().splitlines()) == 2
    else:
        (file,) = [file for file in project.rglob("*mail-2*") if file.suffix != ".dockerignore"]
        assert "mail-2" in file.read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("systemd", "--name", "a b"), 2, "cannot be called"),
        (("systemd", "--name", "../etc"), 2, "cannot be called"),
        (("systemd", "-n", "emial:x"), 2, "column 7"),
        (("systemd", "-c", "0"), 2, "-c"),
        (("sysvinit",), 2, "systemd"),
    ],
)
def test_what_makes_no_sense_is_refused(sapwood, project, words, code, said):
    result = sapwood("generate", "service", *words)
    assert result.code == code
    assert said in result.err
    assert not (project / "deploy").exists()


def test_jobs_in_memory_have_no_service(sapwood, folder):
    (folder / "jobs.py").write_text("from sapwood import MemoryAdapter, Sapwood\napp = Sapwood(MemoryAdapter())\n")
    assert sapwood("generate", "service", "systemd").code == 6


def test_no_file_holds_the_password_of_the_database(sapwood, folder):
    (folder / "jobs.py").write_text('import sapwood\napp = sapwood.Sapwood("postgresql://u:hunter2@db/x")\n')
    for manager, file in FILES.items():
        result = sapwood("generate", "service", manager)
        assert result.code == 0, result
        assert "hunter2" not in (folder / file).read_text()
    assert '"sapwood[postgresql]>=' in (folder / "Dockerfile.worker").read_text()


# --- systemd --------------------------------------------------------------------------------------------------------


def verified(systemd_analyze, unit):
    """Return what systemd understood of a unit that it has no word to say against."""
    done = subprocess.run([systemd_analyze, "verify", unit], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # With this level it prints what it has read.
    environ = os.environ | {"SYSTEMD_LOG_LEVEL": "debug"}
    done = subprocess.run([systemd_analyze, "verify", unit], capture_output=True, check=True, text=True, env=environ)
    return dict(re.findall(r"(?m)^\s*([A-Z][\w ]+): (.*)$", done.stdout))


def test_systemd_has_no_word_to_say_against_the_unit(written, project, systemd_analyze):
    text = written("systemd", "-n", "default:2,email:1")
    understood = verified(systemd_analyze, project / FILES["systemd"])
    assert understood["WorkingDirectory"] == str(project)
    assert shlex.split(understood["Command Line"]) == command("systemd", text)
    assert understood["KillMode"] == "mixed"
    assert understood["NotifyAccess"] == "main"
    assert understood["Restart"] == "always"
    assert understood["OOMPolicy"] == "continue"


@pytest.mark.parametrize("name", ["100% ours $HOME %h ;here", """it's "ours" \\ 100% $HOME"""])
def test_systemd_reads_awkward_paths_as_they_are(sapwood, project, systemd_analyze, monkeypatch, name):
    awkward = project / name
    (awkward / "bin").mkdir(parents=True)
    python = awkward / "bin" / "python 3"
    shutil.copy(shutil.which("true"), python)
    shutil.copytree(project / "jobs", awkward / "jobs")
    shutil.copy(project / "pyproject.toml", awkward)
    monkeypatch.setattr(sys, "executable", str(python))
    result = sapwood("-C", str(awkward), "generate", "service", "systemd", "-n", "$HOME 5%:1")
    assert result.code == 0, result
    # The unit is not read from there, but from where it is installed.
    unit = Path(shutil.copy(awkward / FILES["systemd"], project))
    understood = verified(systemd_analyze, unit)
    assert understood["WorkingDirectory"] == str(awkward)
    words = shlex.split(understood["Command Line"].replace(r"\$", "$"))
    # In all words but the first, two dollars are one, once it starts the command.
    assert words[words.index("-n") + 1] == "$$HOME 5%:1"
    if words[0] == "/usr/bin/env":
        assert words[1] == str(python).replace("$", "$$")
    else:
        assert words[0] == str(python)


def test_a_project_where_systemd_would_forbid_writing_may_write(tmp_path):
    from sapwood.cli import manifests

    service = manifests.Service(
        name="x",
        root=Path("/usr/local/my shop"),
        python="python",
        app="jobs:app",
        spec=None,
        concurrency=None,
        shutdown_timeout=25,
        port=None,
        user="shop",
    )
    text = manifests.systemd(service)
    assert 'ReadWritePaths="/usr/local/my shop"\n' in text
    assert "\nUser=shop\n" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_service_runs_as_the_user_who_owns_the_project(written, project, systemd_analyze):
    os.chown(project, 1, 1)
    assert "\nUser=daemon\n" in written("systemd")
    assert "\nuser=daemon\n" in written("supervisor")
    verified(systemd_analyze, project / FILES["systemd"])


def test_a_project_of_root_is_told_to_choose_a_user(sapwood, project, monkeypatch):
    monkeypatch.setattr(import_module("sapwood.cli.service"), "_owner", lambda _: None)
    assert "choose a User=" in sapwood("generate", "service", "systemd").out
    assert "\n#User=\n" in (project / FILES["systemd"]).read_text()


# --- supervisor -----------------------------------------------------------------------------------------------------


def test_supervisord_reads_awkward_paths_as_they_are(sapwood, project):
    from supervisor.options import UnhosedConfigParser, expand

    awkward = project / "it's 100% ours; %(here)s"
    awkward.mkdir()
    shutil.copytree(project / "jobs", awkward / "jobs")
    shutil.copy(project / "pyproject.toml", awkward)
    result = sapwood("-C", str(awkward), "generate", "service", "supervisor")
    assert result.code == 0, result
    parser = UnhosedConfigParser()
    parser.read_string((awkward / FILES["supervisor"]).read_text())
    read = {name: expand(value, {"here": "no"}, name) for name, value in parser.items("program:sapwood")}
    assert read["directory"] == str(awkward)
    assert shlex.split(read["command"])[0] == sys.executable
    assert (read["stopsignal"], read["stopasgroup"]) == ("TERM", "false")


def test_a_path_that_supervisord_cannot_read_is_refused(sapwood, project):
    awkward = project / "ours ;mine"
    shutil.copytree(project / "jobs", awkward / "jobs")
    shutil.copy(project / "pyproject.toml", awkward)
    assert sapwood("-C", str(awkward), "generate", "service", "supervisor").code == 6


# --- Procfile -------------------------------------------------------------------------------------------------------


def test_a_procfile_keeps_what_it_has(sapwood, project):
    procfile = project / "Procfile"
    procfile.write_text("# ours\nweb: gunicorn shop:app\nrelease: alembic upgrade head")
    sapwood("generate", "service", "procfile")
    line = "worker: exec sapwood --app jobs:app work -n 1 --shutdown-timeout 25"
    text = f"# ours\nweb: gunicorn shop:app\nrelease: alembic upgrade head\n{line}\n"
    assert procfile.read_text() == text
    sapwood("generate", "service", "procfile")
    assert procfile.read_text() == text
    procfile.write_text(f"{line}\nweb: gunicorn shop:app\n")
    sapwood("generate", "service", "procfile", "-n", "2", "--force")
    assert procfile.read_text() == f"{line.replace('-n 1', '-n 2')}\nweb: gunicorn shop:app\n"


def test_the_impatience_of_honcho_is_told(sapwood, project):
    assert "honcho kills after 5 s" in sapwood("generate", "service", "procfile").out
    assert "kills" not in sapwood("generate", "service", "procfile", "--shutdown-timeout", "4", "--force").out


# --- Docker ---------------------------------------------------------------------------------------------------------


REQUIREMENTS = {
    "nothing": {},
    "requirements.txt": {"requirements.txt": "flask\nsapwood[postgresql]\n"},
    "requirements.txt without Sapwood": {"requirements.txt": "flask\n"},
    "pyproject.toml": {
        "pyproject.toml": '[project]\nname = "shop"\nversion = "1"\ndependencies = ["flask", "sapwood"]\n'
    },
}


@pytest.mark.parametrize("kind", REQUIREMENTS)
def test_the_linter_has_no_word_to_say_against_the_dockerfile(written, project, kind):
    for name, text in REQUIREMENTS[kind].items():
        (project / name).write_text(text)
    text = written("docker", "-n", "default:2")
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", FILES["docker"]], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert ("sapwood>=" in text) == ("without" in kind or kind == "nothing")


def test_the_dockerfile_is_careful(written):
    text = written("docker")
    lines = text.splitlines()
    assert "USER 10001:10001" in lines
    assert "STOPSIGNAL SIGTERM" in lines
    assert lines.index("COPY . .") < lines.index("USER 10001:10001")
    assert not re.search(r"(?m)^(ARG|ADD|ENV (?!PYTHONUNBUFFERED=1$))", text)
    assert "the tests of Sapwood do not build or run it" in text


def test_what_docker_is_to_install_is_read_from_the_project(written, project):
    for name, text in REQUIREMENTS["pyproject.toml"].items():
        (project / name).write_text(text)
    (run,) = re.findall(r"(?m)^RUN (python -c .*) > /tmp/requirements.txt", written("docker"))
    shell = ["sh", "-c", run.replace("python", shlex.quote(sys.executable), 1)]
    done = subprocess.run(shell, capture_output=True, check=True, text=True)
    assert done.stdout == "flask\nsapwood\n"


def test_the_health_check_of_docker_asks_the_probe(written):
    probe = Probe("127.0.0.1", 0)
    (check,) = re.findall(r"(?m)^HEALTHCHECK .*\n +CMD (.*)$", written("docker", "--probe-port", str(probe.port)))
    words = [sys.executable, *json.loads(check)[1:]]
    environ = os.environ | {"http_proxy": "http://127.0.0.1:1"}
    assert subprocess.run(words, check=False, env=environ).returncode == 0
    probe.close()
    assert subprocess.run(words, check=False, env=environ, stderr=subprocess.DEVNULL).returncode == 1


def test_secrets_and_databases_stay_out_of_the_image_and_so_does_what_the_project_leaves_out(written, project):
    (project / ".dockerignore").write_text("private/\n")
    written("docker")
    ignored = (project / "Dockerfile.worker.dockerignore").read_text()
    assert ignored.startswith("private/\n\n")
    assert {"**/.env", "**/*.db", "**/.git", "**/*.key"} <= set(ignored.splitlines())


# --- Kubernetes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--name", "mail", "-n", "email:2", "-c", "3", "--probe-port", "9000")])
def test_the_schemas_of_kubernetes_hold(sapwood, project, words):
    from kubernetes_validate import latest_version, validate

    assert sapwood("generate", "service", "kubernetes", *words).code == 0
    (file,) = (project / "deploy").iterdir()
    document = yaml.safe_load(file.read_text())
    for version in ("1.30", latest_version()):
        validate(document, version, strict=True)
    pod = document["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["key"] == "database-url"
    assert container["livenessProbe"]["httpGet"] == {"path": "/live", "port": "probe"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "probe"}
    (port,) = container["ports"]
    assert container["command"][-2:] == ["--probe-port", f"0.0.0.0:{port['containerPort']}"]
    assert document["spec"]["selector"]["matchLabels"] == document["spec"]["template"]["metadata"]["labels"]
    assert "the tests of Sapwood do not run it" in file.read_text()


def test_kubernetes_puts_no_variable_in(written):
    assert command("kubernetes", written("kubernetes", "-n", "$(HOME):1"))[7] == "$$(HOME):1"


@pytest.mark.parametrize("manager", ["docker", "kubernetes"])
def test_sqlite_in_a_container_is_warned_of(sapwood, project, manager):
    assert "SQLite" in sapwood("generate", "service", manager).out
