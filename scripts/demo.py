"""The whole path on real servers, run by Airflow 2.10.4, compared with the known truth. `make demo` calls this.

Owns the order of the steps and the exit code: 0 only when every row of every table of every date equals the truth.
Refuses to call a verb itself: what it shows was done by the tasks of the DAG.
"""

import argparse
import sys
import time
from pathlib import Path

from demo_steps import airflow_home, compare, show, source, web_ui

from millpond.local import Stack

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the demo and return its exit code."""
    options = _options()
    folder: Path = options.dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()

    def step(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {text}", flush=True)

    step(f"servers: remote Kafka (SASL/PLAIN), three brokers, MongoDB, PostgreSQL under {folder / 'stack'}")
    stack = Stack(folder / "stack")
    status = stack.up()

    truth_file = folder / "truth.json"
    if (problem := source.unknown_events(status, truth_file)) is not None:
        print(f"demo: {problem}: remove {folder} after `{show.stop_line(stack)} --delete` and start again")
        return 1
    step(f"{options.count:,} new events over {options.days} days to the remote broker, and their truth")
    source.produce(stack, truth_file, count=options.count, days=options.days)
    truth = source.read_truth(truth_file)

    step("Airflow 2.10.4: metadata database, scheduler, one run of kafka_pipeline_all_in_one with dates=all")
    home = airflow_home.AirflowHome(folder / "airflow", options.airflow, ROOT / "dags", status)
    run = home.run("kafka_pipeline_all_in_one", {"dates": "all"}, lambda line: step(f"  {line}"))
    if run.state != "success":
        print(f"demo: the DAG run ended in state {run.state}\n{run.why}")
        show.further(folder, stack, status)
        return 1

    step("reports, documents and dead letters against the truth")
    differences = compare.differences(status, truth)
    show.books(run.results)
    show.tops(status["postgres"]["dsn"])
    show.further(folder, stack, status)
    print()
    if differences:
        print("\n".join(differences))
        print("demo: reports differ from the truth")
        return 1
    print(
        f"{len(truth['batches'])} batches, {truth['produced']:,} events, {truth['events']:,} documents, "
        f"{truth['dead_letters']['total']:,} dead letters, {len(truth['dates'])} dates"
    )
    print("demo: reports equal the truth", flush=True)
    return web_ui.serve(home, options.port, step) if options.ui else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The whole path on real servers, run by Airflow 2.10.4.")
    parser.add_argument("--dir", type=Path, default=ROOT / ".demo", help="folder of servers, truth and Airflow's home")
    parser.add_argument("--count", type=int, default=200_000, help="new events (default: %(default)s)")
    parser.add_argument("--days", type=int, default=3, help="days that they spread over (default: %(default)s)")
    parser.add_argument(
        "--airflow", type=Path, default=ROOT / ".venv" / "airflow-2.10", help="environment that holds Airflow 2.10.4"
    )
    parser.add_argument("--ui", action="store_true", help="leave Airflow's web UI running until Ctrl-C")
    parser.add_argument("--port", type=int, default=8080, help="its port, if it is free (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
