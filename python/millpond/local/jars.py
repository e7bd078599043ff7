"""Kafka's jars, fetched once by Maven into a cache outside the project."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from millpond.local.errors import LocalError

KAFKA_VERSION = "3.9.2"


def kafka_jars() -> Path:
    """Return the directory of Kafka's jars, fetching them when absent (about 10 s, 56 MB).

    Raises:
        LocalError: Java or Maven is missing, or Maven could not resolve the jars.
    """
    return jars(Path(__file__).with_name("kafka-pom.xml"), f"kafka-{KAFKA_VERSION}", "kafka_2.13-*.jar")


def jars(pom: Path, name: str, proof: str) -> Path:
    """Return the directory `name` of the cache with the jars that `pom` asks for, fetched once.

    Args:
        pom: What Maven resolves.
        name: Names the directory; a change of the versions in `pom` needs another one.
        proof: A pattern that one of the jars matches.

    Raises:
        LocalError: As `kafka_jars`.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "millpond"
    found = cache / name
    if found.is_dir():
        return found
    for tool, how in (("java", "install JDK 17"), ("mvn", "install Maven 3.8 or newer")):
        if shutil.which(tool) is None:
            raise LocalError(f"{tool} is not on the PATH: {how} (Debian: apt-get install openjdk-17-jdk maven)")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found.is_dir():
            return found
        with tempfile.TemporaryDirectory(dir=cache) as work:
            copy = Path(work) / "pom.xml"
            copy.write_bytes(pom.read_bytes())
            out = Path(work) / "jars"
            command = ["mvn", "-B", "-q", "-f", str(copy), "dependency:copy-dependencies", "-DincludeScope=runtime"]
            done = subprocess.run([*command, f"-DoutputDirectory={out}"], capture_output=True, text=True, check=False)
            if done.returncode != 0 or not any(out.glob(proof)):
                tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
                raise LocalError(f"Maven could not fetch {name}:\n{tail}")
            out.rename(found)
    return found
