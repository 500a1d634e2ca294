"""From the stored name of a job to its class."""

import subprocess
import sys
from pathlib import Path

import pytest

from sapwood import Job, MemoryAdapter, Sapwood, job, registry
from sapwood.errors import DuplicateJobName, UnnamedJob


class Top(Job):
    def perform(self) -> None: ...

    class Inner(Job):
        def perform(self) -> None: ...


class Renamed(Job, name="registry.new", aliases=["registry.old", "registry.older"]):
    def perform(self) -> None: ...


class Child(Renamed):
    """Inherits perform, and no name."""


class Base(Job):
    """Has no perform: nothing to find."""


@job
def function() -> None: ...


@pytest.fixture
def fresh(monkeypatch):
    """A registry without classes, for a test that leaves conflicts."""
    monkeypatch.setattr(registry, "_classes", {})
    monkeypatch.setattr(registry, "_conflicts", {})


def made(module: str, qualname: str) -> type:
    return type(qualname, (), {"__module__": module})


@pytest.mark.parametrize(
    ("job_class", "name"),
    [
        (Top, f"{__name__}:Top"),
        (Top.Inner, f"{__name__}:Top.Inner"),
        (function.job_class, f"{__name__}:function"),
        (Renamed, "registry.new"),
        (Child, f"{__name__}:Child"),
    ],
)
def test_a_class_is_found_by_the_name_it_is_stored_under(job_class, name):
    assert job_class.stored_name() == name
    assert registry.find(name) is job_class


@pytest.mark.parametrize("former", ["registry.old", "registry.older"])
def test_a_class_is_found_by_its_former_names(former):
    assert registry.find(former) is Renamed


@pytest.mark.parametrize("name", ["nobody:Nothing", "os:system", "", f"{__name__}:Base", f"{__name__}:Renamed"])
def test_any_other_name_finds_nothing(name):
    assert registry.find(name) is None


def test_a_name_is_never_imported():
    assert "this" not in sys.modules
    assert registry.find("this:Zen") is None
    assert "this" not in sys.modules


def test_a_class_inside_a_function_is_an_error_when_it_is_enqueued_and_not_before():
    class Local(Job):
        def perform(self, n: int) -> int:
            return n

    Sapwood(MemoryAdapter())
    assert Local.perform_now(3) == 3
    with pytest.raises(UnnamedJob, match="name="):
        Local.perform_later(3)


def test_a_class_inside_a_function_may_have_a_name():
    class Local(Job, name="registry.local"):
        def perform(self) -> None: ...

    assert registry.find("registry.local") is Local


def test_the_same_class_again_takes_its_own_place(fresh):
    first, second = made("shop", "A"), made("shop", "A")
    registry.register(first, ["shop:A"])
    registry.register(second, ["shop:A"])
    registry.check()
    assert registry.find("shop:A") is second


def test_a_class_that_comes_back_without_a_name_gives_it_up(fresh):
    registry.register(made("shop", "A"), ["a", "once"])
    registry.register(made("shop", "A"), ["a"])
    assert registry.find("once") is None
    assert registry.names() == ["a"]


@pytest.mark.parametrize("names", [(["mail"], ["mail"]), (["a", "mail"], ["mail"]), (["mail"], ["b", "mail"])])
def test_two_classes_with_one_name_are_refused_when_the_app_loads(fresh, names):
    app = Sapwood(MemoryAdapter())
    registry.register(made("shop.one", "A"), names[0])
    registry.register(made("shop.two", "B"), names[1])
    with pytest.raises(DuplicateJobName) as raised:
        app.load()
    assert "'mail'" in str(raised.value)
    assert "shop.one:A" in str(raised.value)
    assert "shop.two:B" in str(raised.value)


def test_a_conflict_outlives_a_second_look_at_one_of_the_two(fresh):
    registry.register(made("shop.one", "A"), ["mail"])
    for _ in range(2):  # as a decorator that makes a class anew does
        registry.register(made("shop.two", "B"), ["mail"])
    with pytest.raises(DuplicateJobName):
        registry.check()


def test_a_conflict_ends_when_one_of_the_two_takes_another_name(fresh):
    one = made("shop.one", "A")
    registry.register(one, ["mail"])
    registry.register(made("shop.two", "B"), ["mail"])
    registry.register(made("shop.two", "B"), ["post"])
    registry.check()
    assert registry.find("mail") is one


SCRIPT = """
from sapwood import Job

class A(Job):
    def perform(self) -> None: ...

print(A.stored_name())
"""


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["shop/tasks.py"], "tasks:A"),
        (["-m", "shop.tasks"], "shop.tasks:A"),
        (["-m", "shop"], "shop.__main__:A"),
        (["-P", "shop/tasks.py"], "shop.tasks:A"),
        (["my-script.py"], "__main__:A"),
        (["-c", SCRIPT], "__main__:A"),
    ],
)
def test_the_module_that_was_started_is_stored_as_a_worker_would_import_it(tmp_path, command, name):
    (tmp_path / "shop").mkdir()
    for file in ("shop/__init__.py", "shop/tasks.py", "shop/__main__.py", "my-script.py"):
        (tmp_path / file).write_text("" if file.endswith("__init__.py") else SCRIPT)
    path = {"PYTHONPATH": str(tmp_path)} if "-P" in command else {}
    assert _out(tmp_path, command, path) == [name]


def test_a_process_that_multiprocessing_spawned_agrees_on_the_name(tmp_path):
    (tmp_path / "tasks.py").write_text(
        SCRIPT
        + "import multiprocessing\n"
        + "if __name__ == '__main__':\n"
        + "    process = multiprocessing.get_context('spawn').Process(target=A.stored_name)\n"
        + "    process.start()\n"
        + "    process.join()\n"
    )
    assert _out(tmp_path, ["tasks.py"], {}) == ["tasks:A", "tasks:A"]


def _out(folder: Path, command: list[str], more: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=more, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
