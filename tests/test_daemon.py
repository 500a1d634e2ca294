"""The state folder: a lock says who lives, and nothing else is believed."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sapwood.daemon import AlreadyRunning, Identity, NoAnswer, NotRunning, NotTrusted, StateFolder
from sapwood.host import boot_id, started_at

HOLDER = """
import sys
from pathlib import Path
from sapwood.daemon import Identity, StateFolder
folder = StateFolder(Path(sys.argv[1]))
folder.prepare()
folder.hold(Identity.own("1.0"))
folder.listen(lambda request: {"echo": request})
print("held", flush=True)
sys.stdin.read()
folder.let_go()
"""


@pytest.fixture
def folder(tmp_path):
    folder = StateFolder(tmp_path / "state")
    folder.prepare()
    return folder


@pytest.fixture
def holder(folder):
    """A process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def bystander():
    """A process that must not be signalled."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    assert process.poll() is None, "it was signalled"
    process.kill()
    process.communicate()


def test_the_process_that_holds_the_lock_is_found(folder, holder):
    identity = folder.find()
    assert (identity.pid, identity.release, identity.boot) == (holder.pid, "1.0", boot_id())
    assert identity.is_alive


def test_a_second_process_cannot_hold_it(folder, holder):
    with pytest.raises(AlreadyRunning):
        folder.hold(Identity.own("2.0"))
    assert folder.find().pid == holder.pid


def test_whoever_is_killed_holds_it_no_longer(folder, holder):
    holder.kill()
    holder.wait()
    with pytest.raises(NotRunning):
        folder.find()
    folder.hold(Identity.own("2.0"))
    folder.let_go()


def test_it_can_be_asked_and_signalled_and_waited_for(folder, holder):
    assert folder.ask({"verb": "x" * 100_000}, seconds=5) == {"echo": {"verb": "x" * 100_000}}
    identity = folder.find()
    assert not folder.wait_for_end(identity, 0.01)
    assert folder.signal(identity, signal.SIGTERM)
    assert folder.wait_for_end(identity, 5)
    holder.wait()
    assert not folder.signal(identity, signal.SIGTERM)
    with pytest.raises(NoAnswer):
        folder.ask({}, seconds=1)


def test_a_door_behind_a_long_path_is_found_too(tmp_path):
    folder = StateFolder(tmp_path / ("long" * 40))
    folder.prepare()
    folder.listen(lambda request: {"heard": request})
    assert folder.ask({"a": 1}, seconds=5) == {"heard": {"a": 1}}


def test_many_may_ask_at_once(folder, holder):
    answers = []
    guests = [threading.Thread(target=lambda n=n: answers.append(folder.ask({"n": n}, seconds=10))) for n in range(20)]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.join()
    assert sorted(answer["echo"]["n"] for answer in answers) == list(range(20))


def test_the_folder_is_for_its_owner_alone(folder):
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / ".gitignore").read_text() == "*\n"
    folder.hold(Identity.own("1.0"))
    assert (folder.path / "supervisor.lock").stat().st_mode & 0o777 == 0o600
    folder.let_go()


@pytest.mark.parametrize("how", ["open to others", "a link", "a file"])
def test_a_folder_that_others_could_have_made_is_refused(tmp_path, how):
    path = tmp_path / "state"
    if how == "open to others":
        path.mkdir(mode=0o700)
        path.chmod(0o770)
    elif how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text("")
    with pytest.raises((NotTrusted, NotRunning)):
        StateFolder(path).find()
    with pytest.raises(NotTrusted):
        StateFolder(path).prepare()


# --- forged files -----------------------------------------------------------------------------------------------------


def _identity(of, /, **changes):
    identity = {"pid": of, "started": started_at(of), "boot": boot_id(), "release": "1.0"}
    return json.dumps(identity | changes).encode()


def _forged(chance: random.Random, victim: int) -> bytes:
    """Return a text that would have somebody signalled, were it believed."""
    return chance.choice(
        [
            lambda: _identity(victim),
            lambda: _identity(victim, started="ticks 1"),
            lambda: _identity(victim, boot="another"),
            lambda: _identity(victim, pid=1),
            lambda: _identity(victim, pid=-1),
            lambda: _identity(victim, pid=0),
            lambda: _identity(victim, pid=chance.choice([-victim, 2**31, 2**63, str(victim), None, victim + 0.5])),
            lambda: str(victim).encode(),
            lambda: chance.randbytes(chance.randrange(200)),
            lambda: b"",
            lambda: b"[" * 5000,
            lambda: _identity(victim)[: chance.randrange(60)],
        ]
    )()


@pytest.mark.parametrize("seed", range(20))
def test_a_forged_file_that_nobody_holds_names_nobody(folder, bystander, seed):
    chance = random.Random(seed)
    lock = folder.path / "supervisor.lock"
    for _ in range(5):
        lock.write_bytes(_forged(chance, bystander.pid))
        with pytest.raises(NotRunning):
            folder.find()


@pytest.mark.parametrize("seed", range(20))
def test_a_forged_file_that_another_process_holds_names_nobody(folder, holder, bystander, seed):
    chance = random.Random(1000 + seed)
    lock = folder.path / "supervisor.lock"
    for _ in range(5):
        # Another program of ours would lose its own lock by opening the file; this process holds none.
        lock.write_bytes(_forged(chance, bystander.pid))
        with pytest.raises(NotTrusted, match="does not say who holds it"):
            folder.find()


@pytest.mark.parametrize("how", ["a link", "a pipe", "a second name", "a folder"])
def test_a_lock_that_is_no_plain_file_is_refused(folder, tmp_path, bystander, how):
    lock = folder.path / "supervisor.lock"
    target = tmp_path / "target"
    target.write_bytes(_identity(bystander.pid))
    {
        "a link": lambda: lock.symlink_to(target),
        "a pipe": lambda: os.mkfifo(lock),
        "a second name": lambda: os.link(target, lock),
        "a folder": lock.mkdir,
    }[how]()
    with pytest.raises(NotTrusted):
        folder.find()
    with pytest.raises(NotTrusted):
        folder.hold(Identity.own("1.0"))


def test_a_file_of_another_user_is_refused(folder):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    lock = folder.path / "supervisor.lock"
    lock.write_bytes(_identity(os.getpid()))
    os.chown(lock, 65534, 65534)
    with pytest.raises(NotTrusted):
        folder.find()


def test_a_pid_that_another_process_has_by_now_is_not_signalled(folder, bystander):
    reused = Identity(pid=bystander.pid, started="ticks 1", boot=boot_id(), release="1.0")
    assert not reused.is_alive
    assert not folder.signal(reused, signal.SIGKILL)
    before_the_boot = Identity(pid=bystander.pid, started=started_at(bystander.pid), boot="other", release="1.0")
    assert not folder.signal(before_the_boot, signal.SIGKILL)


def test_the_lock_stays_with_a_process_that_becomes_another_program(folder, tmp_path):
    program = tmp_path / "becomes.py"
    program.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from sapwood.daemon import Identity, StateFolder\n"
        "folder = StateFolder(Path(sys.argv[1]))\n"
        "if len(sys.argv) == 2:\n"
        "    folder.hold(Identity.own('1.0'))\n"
        "    os.execv(sys.executable, [sys.executable, __file__, sys.argv[1], str(folder.hand_over())])\n"
        "folder.hold(Identity.own('2.0'), inherited=int(sys.argv[2]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, program, folder.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        assert (folder.find().pid, folder.find().release) == (process.pid, "2.0")
        with pytest.raises(AlreadyRunning):
            StateFolder(folder.path).hold(Identity.own("3.0"))


def test_the_lock_is_the_kernels_and_not_the_files(folder, holder):
    # Whoever removes the file leaves a supervisor that is not found any more, and never one that is signalled wrongly.
    (Path(folder.path) / "supervisor.lock").unlink()
    with pytest.raises(NotRunning):
        folder.find()
    with (folder.path / "supervisor.lock").open("w") as mine:
        fcntl.lockf(mine, fcntl.LOCK_EX)
