"""docker-compose.yml as data, and its commands turned into ones that run here.

Owns the reading. Refuses to correct: what a test runs is what stands in the file, but for places and ports.
"""

from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docker-compose.yml"


def services() -> dict[str, dict[str, Any]]:
    """The services by name, anchors resolved."""
    found: dict[str, dict[str, Any]] = whole()["services"]
    return found


@cache
def whole() -> dict[str, Any]:
    """All of the file."""
    read: dict[str, Any] = YAML(typ="safe", pure=True).load(FILE)
    return read


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """Place inside → file or folder of the repository, of a service's bind mounts."""
    parts = [volume.split(":") for volume in service.get("volumes", [])]
    return {part[1]: ROOT / part[0] for part in parts if part[0].startswith("./")}


def volumes(service: dict[str, Any]) -> set[str]:
    """The named volumes of a service."""
    return {volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith("./")}


def here(words: list[str], service: dict[str, Any]) -> list[str]:
    """Return a command with the places of its mounts replaced by the files themselves."""
    return [_here(word, mounts(service)) for word in words]


def environment(service: dict[str, Any]) -> dict[str, str]:
    """Return a service's environment, mounted places replaced."""
    return {name: _here(value, mounts(service)) for name, value in service.get("environment", {}).items()}


def _here(word: str, mounted: dict[str, Path]) -> str:
    for inside, place in mounted.items():
        # A place stands alone, at an option's end, or as a folder above a file.
        head, found, tail = word.partition(inside)
        if found and (not head or head.endswith("=")) and (not tail or tail.startswith("/")):
            return f"{head}{place}{tail}"
    return word
