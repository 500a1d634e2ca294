import tomllib

import pytest


def snapshot(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.suffix in {".py", ".toml"}}


def test_it_writes_an_app_names_it_and_creates_the_tables(sapwood, folder):
    result = sapwood("setup")
    assert result.code == 0
    assert tomllib.loads((folder / "pyproject.toml").read_text()) == {"tool": {"sapwood": {"app": "jobs:app"}}}
    assert (folder / "jobs.db").exists()
    assert sapwood("migrate", "--check").code == 0
    assert "sapwood generate job WelcomeEmail" in result.out


def test_doing_it_again_changes_nothing(sapwood, folder):
    sapwood("setup")
    before = snapshot(folder)
    result = sapwood("setup")
    assert (result.code, snapshot(folder)) == (0, before)
    assert "create" not in result.out


def test_a_dry_run_writes_nothing(sapwood, folder):
    result = sapwood("setup", "--dry-run")
    assert result.code == 0
    assert "create  jobs/__init__.py" in result.out
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "before",
    [
        '[project]\nname = "shop"  # ours\n',
        '[project]\nname = "shop"',
        '[project]\r\nname = "shop"\r\n',
        "[tool.sapwood]\nconcurrency = 3\n\n[tool.other]\nx = 1\n",
        "[tool.sapwood]",
        "# only a remark\n",
    ],
)
def test_a_pyproject_that_is_there_keeps_all_it_has(sapwood, folder, before):
    (folder / "pyproject.toml").write_bytes(before.encode())
    assert sapwood("setup").code == 0
    after = (folder / "pyproject.toml").read_bytes().decode()
    expected = tomllib.loads(before)
    expected.setdefault("tool", {}).setdefault("sapwood", {})["app"] = "jobs:app"
    assert tomllib.loads(after) == expected
    for line in before.splitlines():
        assert line in after.splitlines()
    assert ("\r\n" in after) == ("\r\n" in before)


def test_a_pyproject_that_cannot_be_added_to_is_left_alone(sapwood, folder):
    (folder / "pyproject.toml").write_text("tool = {other = {x = 1}}\n")
    result = sapwood("setup")
    assert result.code == 3
    assert '[tool.sapwood] app = "jobs:app"' in result.err
    assert [file.name for file in folder.iterdir()] == ["pyproject.toml"]


def test_an_app_that_is_there_is_kept_and_named(sapwood, folder):
    (folder / "jobs.py").write_text('from sapwood import Sapwood\nqueue = Sapwood("sqlite:///mine.db")\n')
    assert sapwood("setup").code == 0
    assert not (folder / "jobs").exists()
    assert tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["sapwood"]["app"] == "jobs:queue"
    assert (folder / "mine.db").exists()


def test_a_jobs_module_is_never_shadowed_by_a_package(sapwood, folder):
    (folder / "jobs.py").write_text("x = 1\n")
    result = sapwood("setup")
    assert result.code == 6
    assert "jobs.py is in the way" in result.err
    assert [file.name for file in folder.iterdir()] == ["jobs.py"]


def test_a_package_with_contents_is_not_written_over(sapwood, folder):
    (folder / "jobs").mkdir()
    (folder / "jobs" / "__init__.py").write_text("x = 1\n")
    assert sapwood("setup").code == 6
    assert (folder / "jobs" / "__init__.py").read_text() == "x = 1\n"


def test_the_database_can_be_chosen_and_is_found_from_every_directory(sapwood, folder, monkeypatch):
    (folder / "data").mkdir()
    assert sapwood("setup", "--database", "sqlite:///data/my.db").code == 0
    assert (folder / "data" / "my.db").exists()
    monkeypatch.chdir("/")
    assert str(folder / "data" / "my.db") in sapwood("-C", str(folder / "data"), "migrate").out


def test_another_database_is_refused_where_there_is_an_app(sapwood, project):
    result = sapwood("setup", "--database", "sqlite:///other.db")
    assert result.code == 6
    assert "jobs:app" in result.err


@pytest.mark.parametrize(("url", "code"), [("jobs.db", 2), ("sqlite:///no/such/x.db", 2), ("nosuch://localhost/x", 4)])
def test_a_database_that_cannot_be_used_is_not_written_down(sapwood, folder, url, code):
    assert sapwood("setup", "--database", url).code == code
    assert list(folder.iterdir()) == []


def test_an_absolute_database_is_written_as_it_is(sapwood, folder):
    assert sapwood("setup", "--database", f"sqlite:///{folder}/abs.db").code == 0
    assert (folder / "abs.db").exists()
    assert f'Sapwood("sqlite:///{folder}/abs.db", imports=["jobs"])' in (folder / "jobs" / "__init__.py").read_text()


def test_an_app_that_pyproject_names_elsewhere_must_be_there(sapwood, folder):
    (folder / "pyproject.toml").write_text('[tool.sapwood]\napp = "shop.tasks:app"\n')
    result = sapwood("setup")
    assert result.code == 3
    assert "no module shop.tasks" in result.err
