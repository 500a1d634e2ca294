"""The first minutes, as a newcomer has them: the built wheel, a fresh environment, an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# One group: the environment is made once, in one process.
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("wheel")]


def run(*command: object, cwd: Path) -> str:
    """Run a command that must succeed; return what it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SAPWOOD"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, check=False, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A virtual environment with nothing in it but the built wheel and what it needs."""
    folder = tmp_path_factory.mktemp("newcomer")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("sapwood-*.whl")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    run(folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return folder / "venv" / "bin"


def test_the_first_job_is_done_within_six_commands(environment, tmp_path):
    sapwood = environment / "sapwood"
    assert "jobs" in run(sapwood, "setup", cwd=tmp_path)
    run(sapwood, "generate", "job", "WelcomeEmail", "user_id:int", "locale:str=en", cwd=tmp_path)
    assert "#1" in run(sapwood, "enqueue", "WelcomeEmail", "user_id=42", cwd=tmp_path)
    assert "WelcomeEmail" in run(sapwood, "list", cwd=tmp_path)
    assert "1 done" in run(sapwood, "workoff", cwd=tmp_path)
    assert "WelcomeEmail" not in run(sapwood, "list", cwd=tmp_path)


def test_a_one_file_application_runs(environment, tmp_path):
    (tmp_path / "jobs.py").write_text(
        "from sapwood import Sapwood, job\n"
        'app = Sapwood("sqlite:///jobs.db")\n'
        "@job\n"
        "def hello(name: str) -> None:\n"
        '    print(f"Hello, {name}!")\n'
        'if __name__ == "__main__":\n'
        '    hello.perform_later("Ada")\n'
    )
    run(environment / "python", "jobs.py", cwd=tmp_path)
    assert "Hello, Ada!" in run(environment / "sapwood", "workoff", cwd=tmp_path)


def test_the_wheel_is_typed_and_holds_the_package_alone(environment):
    told = run(environment / "python", "-m", "pip", "show", "--files", "sapwood", cwd=environment)
    files = [line.strip() for line in told.partition("Files:")[2].splitlines() if line.strip()]
    assert "sapwood/py.typed" in files
    assert {file.split("/")[0].split("-")[0] for file in files} <= {"sapwood", "..", "sapwood.egg"}
