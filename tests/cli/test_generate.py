import subprocess
import sys

import pytest


def files(folder):
    return sorted(
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )


def run_pytest(project):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    # The pytest of the command line, which leaves the current directory off the path, unlike `python -m pytest`.
    code = "import sys, pytest; sys.path[:] = [p for p in sys.path if p]; sys.exit(pytest.main(sys.argv[1:]))"
    command[1:3] = ["-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=project)


@pytest.mark.parametrize("name", ["WelcomeEmail", "welcome-email", "welcome_email", "WelcomeEmailJob"])
def test_every_spelling_of_a_name_writes_the_same(sapwood, folder, name):
    sapwood("setup")
    result = sapwood("generate", "job", name, "user_id:int", "locale:str=en", "--queue", "email")
    assert result.code == 0
    assert (folder / "jobs" / "welcome_email.py").read_text() == (
        '"""Welcome email."""\n'
        "\n"
        "from sapwood import Job\n"
        "\n"
        "\n"
        'class WelcomeEmail(Job, queue="email"):\n'
        '    """Welcome email."""\n'
        "\n"
        '    def perform(self, user_id: int, locale: str = "en") -> None:\n'
        '        self.logger.info("WelcomeEmail user_id=%r locale=%r", user_id, locale)\n'
    )
    assert "tests/test_welcome_email.py" in files(folder)
    assert "tests/__init__.py" not in files(folder)
    assert "WelcomeEmail.perform_later(1)" in result.out
    assert "sapwood enqueue WelcomeEmail user_id=1" in result.out


EVERY_TYPE = (
    "i:int",
    "s",
    "f:float",
    "b:bool",
    "raw:bytes",
    "at:datetime",
    "day:date",
    "key:UUID",
    "price:Decimal",
    "ids:list[int]",
    "names:set[str]",
    "days:dict[str,list[date]]",
    "maybe:datetime=None",
    "since:date=2030-01-02",
    "rate:Decimal=1.5",
)


def test_generated_tests_pass_as_they_are(sapwood, folder):
    sapwood("setup")
    for words in (
        ("EveryType", *EVERY_TYPE),
        ("Nothing",),
        ("Fetch", "url", "--async", "--max-attempts", "5"),
        ("resize", "photo_id:int", "width:int=100", "--function", "--queue", "media"),
        ("refresh", "at:datetime", "--function", "--async"),
    ):
        result = sapwood("generate", "job", *words)
        assert result.code == 0, result
    done = run_pytest(folder)
    assert "5 passed" in done.stdout, done.stdout + done.stderr


def test_generated_code_is_clean(sapwood, folder):
    ruff = pytest.importorskip("ruff")
    sapwood("setup")
    sapwood("g", "job", "EveryType", *EVERY_TYPE)
    sapwood("g", "job", "Fetch", "url", "--async")
    sapwood("g", "job", "resize", "photo_id:int", "--function")
    command = [ruff.find_ruff_bin(), "check", "--isolated", "--select", "F,E4,E7,E9,I,UP,B,SIM,RUF", "."]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout


def test_what_was_generated_can_be_enqueued_and_worked_off(sapwood, folder):
    sapwood("setup")
    sapwood("generate", "job", "EveryType", *EVERY_TYPE)
    result = sapwood("generate", "job", "resize", "photo_id:int", "--function")
    assert "sapwood enqueue resize photo_id=1" in result.out
    assert sapwood("enqueue", "resize", "photo_id=1").code == 0
    assert "1 done" in sapwood("workoff").out


def test_the_next_steps_it_names_work(sapwood, folder):
    import shlex

    sapwood("setup")
    result = sapwood("generate", "job", "EveryType", *EVERY_TYPE)
    (line,) = [line for line in result.out.splitlines() if line.startswith("or:")]
    words = shlex.split(line.removeprefix("or:"))
    result = sapwood(*words[1:])
    assert result.code == 0, result
    result = sapwood("workoff", "--fail-on-error")
    assert (result.code, result.out) == (0, "✓ 1 done\n"), result


def test_a_dry_run_writes_nothing(sapwood, project):
    before = files(project)
    result = sapwood("generate", "job", "Report", "--dry-run")
    assert result.code == 0
    assert "create  jobs/report.py" in result.out
    assert files(project) == before


def test_no_test_is_written_where_none_is_wanted(sapwood, project):
    sapwood("generate", "job", "Report", "--no-test")
    assert "jobs/report.py" in files(project)
    assert not (project / "tests").exists()
    assert not (project / "conftest.py").exists()


def test_a_file_that_is_there_is_kept(sapwood, project):
    (project / "jobs" / "report.py").write_text("# mine\n")
    result = sapwood("generate", "job", "Report")
    assert result.code == 6
    assert "jobs/report.py exists already" in result.err
    assert (project / "jobs" / "report.py").read_text() == "# mine\n"
    assert sapwood("generate", "job", "Report", "--force").code == 0
    assert "class Report" in (project / "jobs" / "report.py").read_text()


def test_a_job_that_is_there_is_not_made_twice(sapwood, project):
    result = sapwood("generate", "job", "welcome-email")
    assert result.code == 6
    assert "jobs.examples:WelcomeEmail" in result.err


def test_a_module_that_would_hide_something_of_the_package_is_refused(sapwood, project):
    result = sapwood("generate", "job", "App")
    assert result.code == 2
    assert "jobs.app" in result.err


def test_an_undeclared_queue_is_refused_with_the_one_that_was_meant(sapwood, project):
    app = project / "jobs" / "__init__.py"
    app.write_text(app.read_text().replace("imports=", 'queues=["default", "email"], imports='))
    result = sapwood("generate", "job", "Report", "--queue", "emial")
    assert result.code == 2
    assert "did you mean 'email'?" in result.err


@pytest.mark.parametrize("words", [("2fast",), ("class",), ("Report", "x:nosuch"), ("Report", "class:int")])
def test_what_python_cannot_have_is_refused(sapwood, project, words):
    before = files(project)
    assert sapwood("generate", "job", *words).code == 2
    assert files(project) == before


def test_without_an_app_it_points_to_setup(sapwood, folder):
    result = sapwood("generate", "job", "Report")
    assert result.code == 3
    assert "sapwood setup" in result.err


def test_beside_a_jobs_module_no_package_is_made_that_would_shadow_it(sapwood, folder):
    (folder / "jobs.py").write_text('from sapwood import Sapwood\napp = Sapwood("sqlite:///jobs.db")\n')
    result = sapwood("generate", "job", "Email")
    assert result.code == 0
    assert not (folder / "jobs").exists()
    assert (folder / "jobs_email.py").exists()
    assert 'add "jobs_email" to imports=[…]' in result.out
    app = folder / "jobs.py"
    app.write_text(app.read_text().replace('.db")', '.db", imports=["jobs_email"])'))
    assert sapwood("enqueue", "Email").code == 0
    assert "1 passed" in run_pytest(folder).stdout
