"""Runs the checks of `make test` and `make lint`, keeps going after a failure, and adds up what passed.

Owns the list of lint steps and the count that `.ci/run` ends with. Refuses to let anything count silently: a skipped
Python test is a failure here, and a check that could not be made is named, not passed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"
SUMMARY = BUILD / "summary"
PYTHON = str(ROOT / ".venv/dev/bin/python")
SOURCES = [name for name in ("python", "dags", "tests", "scripts", "benchmarks") if (ROOT / name).is_dir()]
TYPED = [name for name in ("python", "dags", "tests") if (ROOT / name).is_dir()]
# Where cargo-deny keeps the advisories it has fetched.
ADVISORIES = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo")) / "advisory-dbs"

# The release profile throughout, so that the C libraries are compiled once.
LINTS: dict[str, list[str]] = {
    "rustfmt": ["cargo", "fmt", "--check"],
    "rustfmt, fuzz": ["cargo", "fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"],
    "clippy": ["cargo", "clippy", "--locked", "--release", "--all-targets", "--quiet", "--", "-D", "warnings"],
    "clippy, sabotage": [
        *["cargo", "clippy", "--locked", "--release", "--lib", "--features", "sabotage", "--quiet"],
        *["--", "-D", "warnings"],
    ],
    "ruff check": [PYTHON, "-m", "ruff", "check", "--quiet", *SOURCES],
    "ruff format": [PYTHON, "-m", "ruff", "format", "--check", "--quiet", *SOURCES],
    "mypy": [PYTHON, "-m", "mypy", *TYPED],
    "stubtest": [PYTHON, "-m", "mypy.stubtest", "--mypy-config-file", "pyproject.toml", "millpond._native"],
    "cargo-deny": ["scripts/deny", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"],
}


# Two files beside each other on two cores, each with servers of its own (about 3 GB): most of a test is waiting. More
# than four would ask more of the disk and the memory than they save.
WORKERS = ["--numprocesses=logical", "--maxprocesses=4", "--dist=loadfile", "--no-loadscope-reorder"]


class Tally:
    """Passed and failed, with the names of what failed, and of what passed only when it was tried once more."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.notes: list[str] = []
        self.alone: list[str] = []

    def add(self, passed: int, failed: int, note: str = "") -> None:
        """Count, and remember what to name at the end."""
        self.passed += passed
        self.failed += failed
        if note:
            self.notes.append(note)


def run(name: str, command: list[str], *, keep: bool = False) -> tuple[int, str]:
    """Run one step, show its output as it comes, and return its exit code and, when kept, the output."""
    print(f"── {name}: {' '.join(command).replace(str(ROOT) + '/', '')}", flush=True)
    began = time.monotonic()
    text: list[str] = []
    try:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as step:
            for line in step.stdout or ():
                print(line, end="", flush=True)
                if keep:
                    text.append(line)
        code = step.returncode
    except OSError as error:
        print(error)
        code = 127
    print(f"   {name}: {'ok' if code == 0 else f'FAILED ({code})'}, {time.monotonic() - began:.1f} s", flush=True)
    return code, "".join(text)


def lint(tally: Tally) -> None:
    """Each step counts as one."""
    for name, command in LINTS.items():
        code, _ = run(name, command)
        # Without the stub there is nothing to compare, and stubtest calls that a success.
        if name == "stubtest" and not (ROOT / "python/millpond/_native.pyi").is_file():
            print("   stubtest: FAILED, there is no python/millpond/_native.pyi")
            code = 1
        tally.add(code == 0, code != 0, f"lint: {name}" if code else "")
    if ADVISORIES.is_dir() and any(ADVISORIES.iterdir()):
        code, _ = run("advisories", ["scripts/deny", "check", "--hide-inclusion-graph", "advisories"])
        tally.add(code == 0, code != 0, "lint: advisories" if code else "")
    else:
        print(f"   advisories: NOT CHECKED, no database under {ADVISORIES} (`cargo deny fetch db` brings it)")


def rust(tally: Tally) -> None:
    """Add up the unit tests of the crate."""
    code, text = run("cargo test", ["cargo", "test", "--locked", "--release", "--lib", "--quiet"], keep=True)
    results = re.findall(r"^test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored", text, re.MULTILINE)
    passed = sum(int(result[0]) for result in results)
    failed = sum(int(result[1]) + int(result[2]) for result in results)
    if passed + failed == 0 or (code != 0 and failed == 0):
        failed += 1
    tally.add(passed, failed, "cargo test" if failed else "")


class Fuzz:
    """A minute of the fuzzer, beside whatever comes after it: one core of those that wait for servers."""

    SECONDS = "60"

    def __init__(self) -> None:
        self.log = BUILD / "fuzz.log"
        command = [PYTHON, "scripts/fuzz.py", self.SECONDS]
        print(f"── fuzz, beside what follows: {' '.join(command[1:])}", flush=True)
        with self.log.open("w") as out:
            self.step = subprocess.Popen(["nice", *command], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)

    def end(self, tally: Tally) -> None:
        """Wait for it; it counts as one."""
        code = self.step.wait()
        print(self.log.read_text(), end="")
        print(f"   fuzz: {'ok' if code == 0 else f'FAILED ({code})'}", flush=True)
        tally.add(code == 0, code != 0, "fuzz" if code else "")


# So few failures may be the machine's: each is tried once more, alone, and named whatever comes of it.
FEW = 3
# What speaks of these is the promise broken, and no second run makes it whole.
PROMISE = re.compile(r"\b(lost|doubled|twice)\b", re.IGNORECASE)


def cases(report: Path) -> dict[str, str | None]:
    """What a report of pytest tells of each test: its failure's text, or None."""
    found: dict[str, str | None] = {}
    if report.is_file():
        for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - written by pytest a moment ago
            bad = [child for child in case if child.tag in {"failure", "error", "skipped"}]
            name = f"{case.get('classname')}::{case.get('name')}"
            if bad or name not in found:
                found[name] = f"{bad[0].tag}: {bad[0].get('message')}" if bad else None
    return found


def pytest(name: str, *arguments: str) -> tuple[int, dict[str, str | None]]:
    """Run pytest without the long chaos tests; its exit code, and what it tells of each test."""
    report = BUILD / "pytest.xml"
    report.unlink(missing_ok=True)
    selection = ["-m", "not chaos", f"--junitxml={report}", *os.environ.get("PYTEST_ARGS", "").split()]
    code, _ = run(name, [PYTHON, "-m", "pytest", "tests", *arguments, *selection])
    return code, cases(report)


def python(tally: Tally) -> None:
    """Run every Python test but the long chaos ones; what is skipped has failed."""
    code, found = pytest("pytest", *WORKERS)
    failed = {name: told for name, told in found.items() if told is not None}
    # 1 is pytest's word for tests that failed, and for nothing else.
    if code == 1 and 0 < len(failed) <= FEW and not any(PROMISE.search(told) for told in failed.values()):
        _, again = pytest("pytest, once more and alone", "--last-failed", "--last-failed-no-failures=none")
        for name in [name for name in failed if name in again and again[name] is None]:
            tally.alone.append(f"{name}: {failed.pop(name)}")
        code = code if failed else 0
    tally.notes.extend(f"{name}: {told}" for name, told in failed.items())
    if not failed and (code != 0 or not found):
        tally.add(0, 1, f"pytest ended with {code}")
    tally.add(len(found) - len(failed), len(failed))


def main() -> int:
    """Run the named parts and write the count to .build/summary."""
    BUILD.mkdir(exist_ok=True)
    SUMMARY.unlink(missing_ok=True)
    began = time.monotonic()
    tally = Tally()
    fuzz = None
    for part in sys.argv[1:]:
        if part == "fuzz":
            fuzz = Fuzz()
        else:
            {"lint": lint, "rust": rust, "python": python}[part](tally)
    if fuzz is not None:
        fuzz.end(tally)
    for note in tally.alone:
        print(f"ONLY PASSED ALONE {note}")
    for note in tally.notes:
        print(f"FAILED {note}")
    SUMMARY.write_text(f"{tally.passed} passed, {tally.failed} failed\n")
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(f"checks: {tally.passed} passed, {tally.failed} failed in {minutes} min {seconds} s", flush=True)
    return tally.failed != 0


if __name__ == "__main__":
    sys.exit(main())
