"""Ports that no other stack of this user was given, also when two start in the same instant."""

import fcntl
import json
import os
import random
import socket
from pathlib import Path

from millpond.local.errors import LocalError

# Below Linux's ephemeral range (32768…), so that no outgoing connection takes a port between choice and use.
FIRST, LAST = 20_000, 32_000


def reserve(directory: Path, count: int) -> list[int]:
    """Reserve `count` free ports on 127.0.0.1 for the stack under `directory`.

    Raises:
        LocalError: fewer ports are free.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "millpond"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "ports.json").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        registry: dict[str, list[int]] = json.loads(text) if text else {}
        registry = {name: ports for name, ports in registry.items() if Path(name, "stack.json").exists()}
        taken = {port for ports in registry.values() for port in ports}
        candidates = [port for port in range(FIRST, LAST) if port not in taken]
        random.shuffle(candidates)
        chosen: list[int] = []
        for port in candidates:
            if len(chosen) == count:
                break
            if _free(port):
                chosen.append(port)
        if len(chosen) < count:
            raise LocalError(f"only {len(chosen)} of {count} ports between {FIRST} and {LAST} are free on 127.0.0.1")
        registry[str(directory)] = chosen
        # The stack's own file must exist before the lock goes, or the next stack would drop this reservation.
        (directory / "stack.json").touch()
        file.seek(0)
        file.truncate()
        json.dump(registry, file)
    return chosen


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
