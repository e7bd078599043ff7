"""`millpond local` called as a user calls it, and its servers looked at from outside."""

import ipaddress
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pymongo

FAST = ("mongo", "postgres")


def until(said: Callable[[], Any], seconds: float = 180) -> Any:
    """Poll until something is said, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := said()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return answer


def call(*words: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "millpond.local", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def mongo(status: dict[str, Any], **words: Any) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(status["mongo"]["uri"], **words)


def pids(status: dict[str, Any]) -> dict[str, int]:
    servers = [*status.get("kafka", {}).get("brokers", []), *status.get("mongo", {}).get("nodes", [])]
    servers += [{"name": name, **status[name]} for name in ("remote", "postgres") if name in status]
    return {server["name"]: server["pid"] for server in servers}


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def listens(pid: int) -> set[str]:
    """The addresses on which a server and its children listen."""
    found: list[Any] = []
    for member in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        # A child of PostgreSQL comes and goes.
        with suppress(psutil.NoSuchProcess):
            found += member.net_connections("inet")
    addresses = {ipaddress.ip_address(place.laddr.ip) for place in found if place.status == psutil.CONN_LISTEN}
    # The JVM spells IPv4 in IPv6.
    return {str(getattr(address, "ipv4_mapped", None) or address) for address in addresses}
