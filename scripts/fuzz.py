"""Fuzzes JSON → BSON for so many seconds: `fuzz.py [SECONDS] [DIRECTORY]`, coverage-guided, on stable Rust.

Owns the build (LLVM's coverage counters, which libFuzzer reads) and the corpus, seeds first. What is found in DIRECTORY
is taken up again and added to; without one, a run begins with the seeds alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUZZ = ROOT / "fuzz"
COVERAGE = [
    "-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters", "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]  # fmt: skip
# Fewer mean that the time went elsewhere: such a minute proves nothing.
LEAST_RUNS_A_SECOND = 500


def build() -> Path:
    """Build the fuzzer and return it. The target is named, so that build scripts are not counted with."""
    version = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    host = re.search(r"^host: (\S+)", version, re.MULTILINE)
    assert host is not None
    target = Path(os.environ.get("CARGO_TARGET_DIR", FUZZ / "target")) / "fuzz"
    flags = os.environ | {"RUSTFLAGS": " ".join(COVERAGE), "CARGO_TARGET_DIR": str(target)}
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target", host[1]]
    subprocess.run(command, cwd=FUZZ, env=flags, check=True)
    return target / host[1] / "release" / "millpond-fuzz"


def run(fuzzer: Path, seconds: int, corpus: Path) -> int:
    """Run it; 0 when nothing was found and enough was tried."""
    for number, seed in enumerate((FUZZ / "seeds.txt").read_bytes().splitlines()):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-max_len=700", "-timeout=10", "-rss_limit_mb=1024"]
    places = [f"-dict={FUZZ / 'dictionary.txt'}", f"-artifact_prefix={corpus}/found-", str(corpus)]
    command = [str(fuzzer), *limits, "-print_final_stats=1", *places]
    done = subprocess.run(command, capture_output=True, check=False)
    text = done.stderr.decode(errors="replace")
    if done.returncode != 0:
        print(text[-4_000:])
        return done.returncode
    runs, features = re.search(r"number_of_executed_units: (\d+)", text), re.findall(r"cov: (\d+) ft: (\d+)", text)
    assert runs is not None
    print(f"fuzz: {int(runs[1]):,} messages in {seconds} s, {features[-1][0]} edges, {features[-1][1]} features")
    return 0 if int(runs[1]) >= LEAST_RUNS_A_SECOND * seconds else 1


def main() -> int:
    """Build and run."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    fuzzer = build()
    if len(sys.argv) > 2:
        corpus = Path(sys.argv[2])
        corpus.mkdir(parents=True, exist_ok=True)
        return run(fuzzer, seconds, corpus)
    with tempfile.TemporaryDirectory() as folder:
        return run(fuzzer, seconds, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
