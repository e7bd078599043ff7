"""Where a stack keeps what: one directory, one small state file with the ports, one folder per server."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from millpond.local import ports

CONFIG = Path(__file__).resolve().parent / "config"
DEFAULT_DIRECTORY = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "millpond" / "local" / "default"
BROKERS = ("kafka-1", "kafka-2", "kafka-3")
MONGO_NODES = ("mongo-1", "mongo-2", "mongo-3")


@dataclass
class Layout:
    """Ports and paths of one stack; kept in ``stack.json`` so that a second `up` finds the same ones."""

    directory: Path
    ports: dict[str, int] = field(default_factory=dict)
    mongo_nodes: int = 1

    @classmethod
    def load(cls, directory: Path) -> "Layout":
        """Read the layout kept under `directory`, or an empty one."""
        directory = directory.resolve()
        file = directory / "stack.json"
        text = file.read_text() if file.exists() else ""
        kept = json.loads(text) if text else {}
        return cls(directory, kept.get("ports", {}), kept.get("mongo_nodes", 1))

    @classmethod
    def make(cls, directory: Path, mongo_nodes: int | None) -> "Layout":
        """Read the layout kept under `directory`, or choose ports for a new one and keep it."""
        directory.mkdir(parents=True, exist_ok=True)
        layout = cls.load(directory)
        if not layout.ports:
            names = ["remote", "remote-controller", "postgres", *MONGO_NODES]
            names += [name + suffix for name in BROKERS for suffix in ("", "-controller")]
            layout.ports = dict(zip(names, ports.reserve(layout.directory, len(names)), strict=True))
            layout.mongo_nodes = mongo_nodes or 1
        (layout.directory / "logs").mkdir(exist_ok=True)
        layout.save()
        return layout

    def save(self) -> None:
        """Write ``stack.json`` at once or not at all."""
        file = self.directory / "stack.json"
        scratch = file.with_suffix(".new")
        scratch.write_text(json.dumps({"ports": self.ports, "mongo_nodes": self.mongo_nodes}, indent=1))
        scratch.replace(file)

    def log(self, name: str) -> Path:
        """Return the log file of a server."""
        return self.directory / "logs" / f"{name}.log"

    @property
    def short_id(self) -> str:
        """A name for this stack that is unique on the machine."""
        return hashlib.sha256(str(self.directory).encode()).hexdigest()[:12]

    @property
    def jaas(self) -> Path:
        """The JAAS file of the remote broker."""
        return CONFIG / "kafka" / "kafka_server_jaas.conf"
