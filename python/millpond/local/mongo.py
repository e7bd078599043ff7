"""MongoDB: command line, replica set, readiness."""

import ctypes.util
import importlib.util
import time
from contextlib import suppress
from pathlib import Path

from millpond.local.errors import LocalError
from millpond.local.layout import CONFIG, MONGO_NODES, Layout


def command(layout: Layout, name: str) -> list[str]:
    """Return the command line of node `name`."""
    home = layout.directory / name
    home.mkdir(exist_ok=True)
    arguments = ["--config", str(CONFIG / "mongo" / "mongod.conf"), "--dbpath", str(home)]
    return [str(binary()), *arguments, "--port", str(layout.ports[name])]


def binary() -> Path:
    """Return the path of mongod.

    Raises:
        LocalError: It is not installed, or needs a library that is missing.
    """
    spec = importlib.util.find_spec("fiftyone")
    for place in (spec.submodule_search_locations or []) if spec else []:
        mongod = Path(place) / "db" / "bin" / "mongod"
        if mongod.exists():
            for library, package in (("curl", "libcurl4"), ("ssl", "libssl3")):
                if ctypes.util.find_library(library) is None:
                    raise LocalError(f"mongod needs {package}, which is missing (Debian: apt-get install {package})")
            return mongod
    raise LocalError("mongod is not installed: pip install 'millpond[local]'")


def nodes(layout: Layout) -> tuple[str, ...]:
    """Return the names of the nodes of this stack."""
    return MONGO_NODES[: layout.mongo_nodes]


def uri(layout: Layout) -> str:
    """Return the URI of the replica set."""
    hosts = ",".join(f"127.0.0.1:{layout.ports[name]}" for name in nodes(layout))
    return f"mongodb://{hosts}/?replicaSet=rs0"


def ready(layout: Layout, name: str) -> bool:
    """Whether a node answers."""
    import pymongo
    from pymongo.errors import PyMongoError

    address = f"mongodb://127.0.0.1:{layout.ports[name]}/?directConnection=true"
    with pymongo.MongoClient[dict[str, object]](address, serverSelectionTimeoutMS=400) as client:
        try:
            client.admin.command("ping")
        except PyMongoError:
            return False
    return True


def form_replica_set(layout: Layout, patience: float = 120.0) -> None:
    """Initiate the replica set when it is new, and wait for a primary.

    Raises:
        LocalError: no primary in time.
    """
    import pymongo
    from pymongo.errors import PyMongoError

    members = [{"_id": i, "host": f"127.0.0.1:{layout.ports[name]}"} for i, name in enumerate(nodes(layout))]
    address = f"mongodb://{members[0]['host']}/?directConnection=true"
    deadline = time.monotonic() + patience
    with pymongo.MongoClient[dict[str, object]](address, serverSelectionTimeoutMS=20_000) as client:
        try:
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
        except PyMongoError as error:
            if getattr(error, "code", None) != 23:  # AlreadyInitialized: an older stack goes on
                raise LocalError(f"mongo-1: replSetInitiate: {error}") from error
        while time.monotonic() < deadline:
            with suppress(PyMongoError):
                if client.admin.command("hello").get("primary"):
                    return
                # Several nodes wait ten seconds before one stands for election, unless it is told to.
                client.admin.command("replSetStepUp")
            time.sleep(0.1)
    raise LocalError("mongo: no primary was elected")
