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
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "millpond"
    jars = cache / f"kafka-{KAFKA_VERSION}"
    if jars.is_dir():
        return jars
    for tool, how in (("java", "install JDK 17"), ("mvn", "install Maven 3.8 or newer")):
        if shutil.which(tool) is None:
            raise LocalError(f"{tool} is not on the PATH: {how} (Debian: apt-get install openjdk-17-jdk maven)")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars.is_dir():
            return jars
        with tempfile.TemporaryDirectory(dir=cache) as work:
            pom = Path(work) / "pom.xml"
            pom.write_bytes(Path(__file__).with_name("kafka-pom.xml").read_bytes())
            out = Path(work) / "jars"
            command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
            done = subprocess.run([*command, f"-DoutputDirectory={out}"], capture_output=True, text=True, check=False)
            if done.returncode != 0 or not any(out.glob("kafka_2.13-*.jar")):
                tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
                raise LocalError(f"Maven could not fetch Kafka {KAFKA_VERSION}:\n{tail}")
            out.rename(jars)
    return jars
