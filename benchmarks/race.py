"""Contenders in turn on the same data: every run is printed, then ratios pair by pair and their medians.

Owns the order and the arithmetic. Refuses to judge by the clock of one run: machines are noisy, ratios within a round
are less so.
"""

import json
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
CONSOLE = Console(width=max(Console().width, 110), highlight=False)


@dataclass
class Contender:
    """A name, and how its next run is started; what it needs fresh (topics, collections) is made by `prepare`."""

    name: str
    prepare: Callable[[], list[str]]
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Events per second of each run."""
        return [answer["events"] / answer["seconds"] for answer in self.answers]

    @property
    def cpu_per_million(self) -> list[float]:
        """CPU seconds of the client per million events, of each run."""
        return [answer["cpu_s"] / answer["events"] * 1e6 for answer in self.answers if "cpu_s" in answer]


def run(command: list[str]) -> dict[str, Any]:
    """Run one contender to its end and return its answer."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
    if done.returncode != 0:
        raise SystemExit(f"{command[:2]} ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def race(title: str, contenders: list[Contender], rounds: int) -> None:
    """Run all contenders, one round after another; the order turns, so that none is always the first on warm caches."""
    for number in range(rounds):
        turned = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
        for contender in turned:
            answer = run(contender.prepare())
            contender.answers.append(answer)
            peak = f", peak {answer['peak_mb']:,.0f} MB" if "peak_mb" in answer else ""
            rate = answer["events"] / answer["seconds"]
            print(
                f"{title} {number + 1}/{rounds} {contender.name:<36} {answer['events']:>9,} events "
                f"{answer['seconds']:7.2f} s {rate:>9,.0f}/s{peak}",
                flush=True,
            )
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("", "median events/s", "median s", "min s", "max s", "CPU s per million", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    for contender in contenders:
        seconds = [answer["seconds"] for answer in contender.answers]
        peaks = [answer["peak_mb"] for answer in contender.answers if "peak_mb" in answer]
        table.add_row(
            contender.name,
            f"{statistics.median(contender.rates):,.0f}",
            *(f"{value:.2f}" for value in (statistics.median(seconds), min(seconds), max(seconds))),
            f"{statistics.median(contender.cpu_per_million):.2f}" if contender.cpu_per_million else "",
            f"{max(peaks):,.0f}" if peaks else "",
        )
    CONSOLE.print(table)


def ratio(what: str, of: Contender, to: Contender, floor: str, holds: Callable[[float], bool] | None) -> None:
    """Print the ratio of two contenders' rates, round by round, its median, and whether the floor holds."""
    ratios = [one / other for one, other in zip(of.rates, to.rates, strict=True)]
    median = statistics.median(ratios)
    shown = " ".join(f"{value:.2f}" for value in ratios)
    verdict = "" if holds is None else f"; {floor}: {'holds' if holds(median) else 'DOES NOT HOLD'}"
    print(f"{what}: median {median:.2f} ({shown}){verdict}", flush=True)
