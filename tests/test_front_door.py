"""What ``import sapwood`` offers, and what it costs."""

import subprocess
import sys

import pytest

import sapwood


def test_the_names_are_few_and_sorted():
    assert sapwood.__all__ == sorted(sapwood.__all__)
    assert len(sapwood.__all__) <= 20


def test_what_is_offered_is_what_is_seen():
    assert dir(sapwood) == sapwood.__all__
    star: dict[str, object] = {}
    exec("from sapwood import *", star)
    assert sorted(name for name in star if name != "__builtins__") == sapwood.__all__


@pytest.mark.parametrize("name", sapwood.__all__)
def test_every_name_leads_to_something(name):
    assert getattr(sapwood, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Celery"):
        sapwood.Celery  # noqa: B018 - looking it up is the test


def test_importing_and_enqueuing_in_memory_load_neither_sqlalchemy_nor_rich():
    program = """
import sys
from sapwood import Job, MemoryAdapter, Sapwood
class A(Job):
    def perform(self, n: int) -> None: ...
app = Sapwood(MemoryAdapter())
A.perform_later(1)
heavy = {"sqlalchemy", "rich", "click"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_release_is_told():
    assert sapwood.__version__.count(".") == 2


def test_an_application_without_asyncio_needs_no_greenlet(tmp_path):
    program = """
import sys
sys.modules["greenlet"] = None
from sapwood import Sapwood, Worker, job

@job
def nothing() -> None:
    return None

app = Sapwood(f"sqlite:///{sys.argv[1]}/jobs.db")
nothing.perform_later()
print(Worker(app).workoff().succeeded)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n", done.stderr
