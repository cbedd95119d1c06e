"""Networks of their own for workers, where the kernel allows it: then the network itself is cut, and TCP finds out by itself.

Each is a namespace with one link to this machine. Needs the command ``ip`` and the right to make namespaces.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class Network:
    """One namespace; ``near`` is this machine's address on the link, ``far`` that of the processes inside."""

    name: str = field(default_factory=lambda: f"fray-{secrets.token_hex(3)}")
    near: str = ""
    far: str = ""

    def create(self) -> None:
        """Make it.

        Raises:
            OSError: if the system refuses, in its words; nothing is left then.
        """
        block = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}"
        first = 4 * secrets.randbelow(64)
        self.near, self.far = f"{block}.{first + 1}", f"{block}.{first + 2}"
        try:
            _ip("netns", "add", self.name)
            _ip("link", "add", self._near_end, "type", "veth", "peer", "name", "far", "netns", self.name)
            _ip("address", "add", f"{self.near}/30", "dev", self._near_end)
            _ip("link", "set", self._near_end, "up")
            _ip("-n", self.name, "address", "add", f"{self.far}/30", "dev", "far")
            _ip("-n", self.name, "link", "set", "lo", "up")
            self.heal()
        except OSError:
            self.remove()
            raise

    def enter(self) -> list[str]:
        """Return the beginning of a command that runs another one inside."""
        return ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        """Take the link down: packets vanish, both ways."""
        _ip("-n", self.name, "link", "set", "far", "down")

    def heal(self) -> None:
        """Bring the link up."""
        _ip("-n", self.name, "link", "set", "far", "up")

    def remove(self) -> None:
        """Remove it. Idempotent."""
        for command in (["link", "delete", self._near_end], ["netns", "delete", self.name]):
            with suppress(OSError):
                _ip(*command)

    @property
    def _near_end(self) -> str:
        return f"{self.name}-n"


def find_obstacle() -> str | None:
    """Return why this machine has no networks of that kind, or None if it has."""
    if shutil.which("ip") is None:
        return "there is no command `ip` (iproute2)"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    network = Network()
    try:
        network.create()
    except OSError as error:
        return f"the kernel does not allow network namespaces: {error}"
    network.remove()
    return None


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
