import http.client
import json
import os
import socket
from types import SimpleNamespace

import pytest

from sapwood import health
from sapwood.errors import ConfigurationError
from sapwood.health import Probe, ServiceManager


def standing(**words):
    """Return how a supervisor stands, as far as others are told."""
    return SimpleNamespace(**{"is_ready": False, "is_stopping": False, "obstacles": []} | words)


@pytest.fixture
def probe():
    probe = Probe("127.0.0.1", 0)
    yield probe
    probe.close()


def get(port, path, host="127.0.0.1"):
    """Return the status and the document that a probe answers with."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    return answer.status, document


def test_a_probe_is_ready_when_the_supervisor_is(probe):
    assert get(probe.port, "/ready") == (503, {"ready": False, "obstacles": ["it has only just begun"]})
    probe.told(standing(obstacles=["no database"]))
    assert get(probe.port, "/ready") == (503, {"ready": False, "obstacles": ["no database"]})
    probe.told(standing(is_ready=True))
    assert get(probe.port, "/ready?verbose") == (200, {"ready": True, "obstacles": []})


def test_a_supervisor_that_does_not_turn_is_neither_alive_nor_ready(probe, monkeypatch):
    probe.told(standing(is_ready=True))
    assert get(probe.port, "/live")[0] == 200
    monkeypatch.setattr(health, "ALIVE_SECONDS", 0.0)
    status, document = get(probe.port, "/live")
    assert (status, document["live"]) == (503, False)
    assert get(probe.port, "/ready")[0] == 503


def test_a_probe_answers_nothing_else(probe):
    assert get(probe.port, "/") == (404, {"paths": ["/live", "/ready"]})


def test_a_port_that_is_taken_is_told(probe):
    with pytest.raises(ConfigurationError, match="cannot answer probes"):
        Probe("127.0.0.1", probe.port)


def test_a_probe_listens_to_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as there:
            there.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"there is no IPv6 here: {error}")
    probe = Probe("::1", 0)
    assert get(probe.port, "/live", host="::1")[0] == 200
    probe.close()


def test_a_probe_does_not_ask_for_the_name_of_its_address(monkeypatch):
    def ask(*_):
        raise AssertionError("that can take many seconds where no name server answers")

    monkeypatch.setattr(socket, "getfqdn", ask)
    Probe("127.0.0.1", 0).close()


def test_a_caller_who_says_nothing_is_not_waited_for_for_ever(probe, monkeypatch):
    handler = probe._server.RequestHandlerClass
    assert 0 < handler.timeout <= 10
    monkeypatch.setattr(handler, "timeout", 0.05)
    with socket.create_connection(("127.0.0.1", probe.port), timeout=10) as silent:
        assert silent.recv(1) == b""


@pytest.mark.parametrize("kind", ["a path", "a path with an @ in it", "an abstract name"])
def test_systemd_is_told_what_is_new_and_once(tmp_path, kind):
    if kind == "an abstract name":
        address, name = f"\0sapwood-{os.getpid()}", f"@sapwood-{os.getpid()}"
    else:
        folder = tmp_path / ("user@host" if "@" in kind else "plain")
        folder.mkdir()
        address = name = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(10)
        manager = ServiceManager({"NOTIFY_SOCKET": name})
        manager.told(standing())
        manager.told(standing(is_ready=True))
        manager.told(standing(is_ready=True))
        manager.told(standing(is_stopping=True))
        assert [listener.recv(100), listener.recv(100)] == [b"READY=1", b"STOPPING=1"]
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(100)


@pytest.mark.parametrize(
    ("environ", "beats"),
    [
        ({"WATCHDOG_USEC": "60000000"}, True),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "no number"}, False),
        ({}, False),
    ],
)
def test_signs_of_life_are_sent_where_systemd_wants_them_from_this_process(tmp_path, environ, beats):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), **environ})
        for _ in range(3):
            manager.told(standing())
        listener.setblocking(False)
        said = []
        while True:
            try:
                said.append(listener.recv(100))
            except BlockingIOError:
                break
        # Once in half of the time that systemd waits.
        assert said == ([b"WATCHDOG=1"] if beats else [])


def test_without_a_socket_nobody_is_told():
    ServiceManager({}).told(standing(is_ready=True))


def test_a_service_manager_that_is_gone_harms_nobody(tmp_path):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).told(standing(is_ready=True))
