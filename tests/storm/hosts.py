"""Two hosts on one machine: namespaces of the network, each on a cable of its own to where the database server is."""

import itertools
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress

import pytest

_numbers = itertools.count(os.getpid() % 50 * 4)

_NOBODY = "02:00:00:00:00:fe"


class Host:
    """A namespace of the network with one cable, which can be pulled."""

    def __init__(self) -> None:
        number = next(_numbers) % 250
        self.name = f"sapwood-{os.getpid()}-{number}"
        self._cable = f"sw{os.getpid() % 100_000}n{number}"
        self.gateway, self.address = f"10.213.{number}.1", f"10.213.{number}.2"
        commands = [
            f"ip netns add {self.name}",
            f"ip link add {self._cable} type veth peer name eth0 netns {self.name}",
            f"ip address add {self.gateway}/30 dev {self._cable}",
            f"ip link set {self._cable} up",
            f"ip -n {self.name} address add {self.address}/30 dev eth0",
            f"ip -n {self.name} link set eth0 up",
            f"ip -n {self.name} link set lo up",
            f"ip -n {self.name} route add default via {self.gateway}",
        ]
        try:
            for command in commands:
                _done(command)
        except (OSError, subprocess.CalledProcessError) as error:
            self.end()
            reason = (getattr(error, "stderr", "") or str(error)).strip()
            pytest.skip(f"namespaces of the network: {reason}")

    def prefix(self) -> Sequence[str]:
        """Return what a command begins with to run on this host."""
        return ("ip", "netns", "exec", self.name)

    def pull(self) -> None:
        """Pull the cable: packets go to nobody, in both directions, and no one is told."""
        _done(f"ip -n {self.name} neighbour replace {self.gateway} lladdr {_NOBODY} nud permanent dev eth0")
        _done(f"ip neighbour replace {self.address} lladdr {_NOBODY} nud permanent dev {self._cable}")

    def plug(self) -> None:
        """Plug it in again."""
        _done(f"ip -n {self.name} neighbour delete {self.gateway} dev eth0")
        _done(f"ip neighbour delete {self.address} dev {self._cable}")

    def end(self) -> None:
        """Remove it."""
        for command in (f"ip link delete {self._cable}", f"ip netns delete {self.name}"):
            with suppress(OSError, subprocess.CalledProcessError):
                _done(command)


def _done(command: str) -> None:
    subprocess.run(command.split(), capture_output=True, text=True, check=True)
