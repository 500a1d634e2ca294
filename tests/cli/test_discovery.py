import pytest

APP = 'from sapwood import Sapwood\napp = Sapwood("sqlite:///jobs.db")\n'


def write(folder, name, text=APP):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_an_app_it_ends_with_3_and_says_where_it_looked(sapwood, folder):
    result = sapwood("list")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("error: no Sapwood app found\n  why: looked at --app, SAPWOOD_APP and [tool.sapwood]")
    assert "sapwood setup" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "place", ["jobs.py", "jobs/__init__.py", "app/jobs.py", "src/shop/jobs.py", "shop/jobs.py", "shop/jobs/__init__.py"]
)
def test_an_app_is_found_where_people_keep_one(sapwood, folder, place):
    write(folder, place)
    if place.startswith("shop/"):
        write(folder, "shop/__init__.py", "")
    assert sapwood("list").code == 0


def test_the_option_goes_before_the_environment_and_that_before_pyproject(sapwood, folder, monkeypatch):
    for name in ("one", "two", "three"):
        write(folder, f"{name}.py", APP.replace("jobs.db", f"{name}.db"))
    write(folder, "pyproject.toml", '[tool.sapwood]\napp = "three:app"\n')
    assert "three.db" in sapwood("migrate").out
    monkeypatch.setenv("SAPWOOD_APP", "two:app")
    assert "two.db" in sapwood("migrate").out
    assert "one.db" in sapwood("-a", "one:app", "migrate").out
    assert "one.db" in sapwood("migrate", "--app", "one:app").out


def test_a_project_is_found_from_a_folder_below(sapwood, project, monkeypatch):
    (project / "jobs" / "email.py").write_text("raise RuntimeError('this is not the email of the standard library')\n")
    (project / "jobs" / "email.py").unlink()
    monkeypatch.chdir(project / "jobs")
    assert sapwood("list").code == 0


def test_a_module_alone_is_enough_where_it_holds_one_app(sapwood, folder):
    write(folder, "one.py")
    assert sapwood("-a", "one", "list").code == 0


def test_two_apps_in_one_file_are_one_too_many(sapwood, folder):
    write(folder, "jobs.py", APP + 'other = Sapwood("sqlite:///other.db")\n')
    result = sapwood("list")
    assert result.code == 3
    assert "sapwood -a jobs:app" in result.err
    assert sapwood("-a", "jobs:other", "list").code == 0


def test_a_file_that_does_not_speak_of_sapwood_is_not_imported(sapwood, folder):
    write(folder, "jobs.py", "raise SystemExit('imported')\n")
    result = sapwood("list")
    assert "no Sapwood app found" in result.err


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("nothere:app", "no module nothere"),
        ("jobs.nothere:app", "no module jobs.nothere"),
        ("jobs:ap", "did you mean jobs:app?"),
        ("jobs:Sapwood", "is no Sapwood app"),
        ("no module:app", "names no module"),
        (":app", "names no module"),
    ],
)
def test_a_reference_that_leads_nowhere_ends_with_3(sapwood, project, reference, expected):
    result = sapwood("-a", reference, "list")
    assert result.code == 3
    assert expected in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nimport nothere\n", "ModuleNotFoundError: No module named 'nothere'\n       jobs.py:4 in <module>"),
        ("\n1 / 0\n", "ZeroDivisionError: division by zero\n       jobs.py:4 in <module>"),
        ("\ndef f(:\n", "jobs.py:4"),
        ("\nraise SystemExit(3)\n", "SystemExit: 3\n       jobs.py:4 in <module>"),
        ("\nfrom sapwood import Job\nclass A(Job, priority=1000): pass\n", "jobs.py:5 in <module>"),
    ],
)
def test_an_error_in_the_users_module_is_shown_with_its_line(sapwood, folder, text, expected):
    write(folder, "jobs.py", APP + text)
    result = sapwood("list")
    assert (result.code, result.out) == (3, "")
    assert expected in result.err
    assert "Traceback" not in result.err
    assert "Traceback" in sapwood("list", "-v").err


def test_an_error_in_a_module_with_jobs_is_shown_with_its_line(sapwood, project):
    (project / "jobs" / "broken.py").write_text("import nothere\n")
    result = sapwood("list")
    assert result.code == 3
    assert "No module named 'nothere'" in result.err
    assert "jobs/broken.py:1" in result.err


def test_an_unknown_adapter_ends_with_3(sapwood, project):
    result = sapwood("list", "--adapter", "audit")
    assert result.code == 3
    assert "there is no adapter 'audit'" in result.err


def test_a_pyproject_that_is_no_toml_ends_with_3(sapwood, folder):
    write(folder, "pyproject.toml", "[tool.sapwood\n")
    result = sapwood("list")
    assert result.code == 3
    assert "cannot read" in result.err
