"""Runs what takes longer than a notebook may, and keeps what came out.

An experiment is a list of runs. A run is a configuration and a seed; with the same versions on the
same kind of machine the two give the same result. Each result is written as soon as it is there, so
an experiment that was stopped goes on where it was, and a run whose configuration has changed is
made again. Runs are made by a pool of processes here, or, with ``SCHEDULER=tcp://…``, by the
workers of a Dask cluster (``_cluster.py``).
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.common import console
from tools.common.files import write_atomically

console.prepare("make setup")

import torch  # noqa: E402
from _cluster import ClusterError, results_of  # noqa: E402
from tqdm import tqdm  # noqa: E402

COURSE = Path(__file__).resolve().parent.parent
# Within the package, so that a notebook finds them wherever it is installed.
RESULTS = COURSE / "src" / "slingshot" / "stored" / "experiments"


@dataclass(frozen=True)
class Run:
    """One run: the name that its repetitions share, its seed, and its whole configuration.

    The configuration is stored beside the result, so it is made of what JSON knows.
    """

    name: str
    seed: int
    configuration: dict[str, Any]

    @property
    def key(self) -> str:
        """The name under which the result is stored."""
        return f"{self.name}/{self.seed}"


Stored = dict[str, dict[str, Any]]
"""By key: ``configuration``, ``result``, ``versions``."""


def main(
    experiment: str,
    runs: Sequence[Run],
    execute: Callable[[Run], dict[str, Any]],
    argv: Sequence[str] | None = None,
) -> int:
    """Make the runs that are missing or out of date, and store them; return the exit code."""
    arguments = parse_arguments(experiment, argv)
    if arguments.one is not None:
        return make_one(runs, execute, arguments.one)
    file = arguments.results / f"{experiment}.json"
    stored = read(file)
    wanted = [run for run in runs if arguments.only is None or run.name in arguments.only]
    if arguments.only and (unknown := set(arguments.only) - {run.name for run in runs}):
        known = ", ".join(dict.fromkeys(run.name for run in runs))
        print(f"no run {', '.join(sorted(unknown))}; there are: {known}", file=sys.stderr)
        return 2
    order = [run.key for run in runs]
    vanished = stored.keys() - set(order)
    missing = [run for run in wanted if arguments.again or is_stale(run, stored)]
    print(f"{experiment}: {len(wanted) - len(missing)} of {len(wanted)} runs are stored")
    if arguments.list:
        print("\n".join(f"to do: {run.key}" for run in missing) or "nothing to do")
        return 0
    if vanished:
        write(file, stored, order)
    remade = {run.key for run in missing}
    if missing and (made_with := foreign(each for k, each in stored.items() if k not in remade)):
        print(
            f"the stored runs were made with {made_with}, and what is missing would not be: its "
            "text and arithmetic differ. Use those versions, or make all again with --again",
            file=sys.stderr,
        )
        return 2
    try:
        engine = (
            on_cluster(arguments.scheduler, experiment, missing)
            if arguments.scheduler and missing
            else results(missing, execute, arguments.jobs)
        )
        for run, made in engine:
            stored[run.key] = {"configuration": run.configuration, **made}
            write(file, stored, order)
    except ClusterError as error:
        print(f"{experiment}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; what is done is in {file.name}, and the rest goes on from there")
        return 130
    return 0


def parse_arguments(experiment: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=f"Run the experiment {experiment}.")
    parser.add_argument("--list", action="store_true", help="say what is to do, and do nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="runs of these names only")
    parser.add_argument("--again", action="store_true", help="also make runs that are stored")
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="runs at the same time, each on one core (default: %(default)s)",
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of the results (default: %(default)s)"
    )
    parser.add_argument(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        default=os.environ.get("SCHEDULER", ""),
        help="make the runs on a Dask cluster (default: on this machine)",
    )
    parser.add_argument("--one", metavar="KEY", help=argparse.SUPPRESS)  # on a worker of a cluster
    arguments = parser.parse_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs is {arguments.jobs}; give at least 1")
    return arguments


def is_stale(run: Run, stored: Stored) -> bool:
    """Say whether the run has no stored result, or one of another configuration."""
    return run.key not in stored or stored[run.key]["configuration"] != run.configuration


def results(
    runs: Sequence[Run], execute: Callable[[Run], dict[str, Any]], jobs: int
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Make the runs, ``jobs`` at a time, and yield what is stored of each as it comes.

    What a run raises is raised here, with its name; the runs that are left are not begun.
    """
    pool = ProcessPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = {pool.submit(execute, run): run for run in runs}
        with tqdm(total=len(runs), unit="run") as bar:
            for future in as_completed(futures):
                bar.set_postfix_str(futures[future].key)
                bar.update()
                if error := future.exception():
                    error.add_note(f"in the run {futures[future].key}")
                yield futures[future], {"result": future.result(), "versions": versions()}
    except BaseException:
        # Without this a Ctrl-C would wait for every run that has not begun.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def on_cluster(
    address: str, experiment: str, runs: Sequence[Run]
) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Make the runs on a cluster, and yield what is stored of each as it comes.

    What a run raises is raised here as ``RuntimeError``, with its name and its traceback.
    """
    by_key = {run.key: run for run in runs}
    answers = results_of(address, experiment, list(by_key), COURSE, versions())
    with tqdm(total=len(runs), unit="run") as bar:
        for key, answer in answers:
            bar.set_postfix_str(key)
            bar.update()
            if "raised" in answer:
                raise RuntimeError(f"in the run {key}, on the cluster:\n{answer['raised']}")
            yield by_key[key], {name: answer[name] for name in ("result", "versions")}


def make_one(runs: Sequence[Run], execute: Callable[[Run], dict[str, Any]], key: str) -> int:
    """Make one run for a worker of a cluster, and write what is stored of it to the output."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no result
    threading.Thread(target=end_with_the_worker, daemon=True).start()
    torch.set_num_threads(1)
    (run,) = [each for each in runs if each.key == key]
    with output:
        json.dump({"result": execute(run), "versions": versions()}, output)
    return 0


def end_with_the_worker() -> None:
    """End this process when the worker that has started it is gone."""
    while os.read(0, 1):  # by its number: a reader would hold a lock when this process ends
        pass
    os._exit(1)


def read(file: Path) -> Stored:
    """Return the stored results by key; none if there is no file."""
    with contextlib.suppress(FileNotFoundError):
        stored: Stored = json.loads(file.read_text("utf-8"))
        return stored
    return {}


def write(file: Path, stored: Stored, order: Sequence[str]) -> None:
    """Replace the file in one step, with the runs of ``order`` and no others."""
    ordered = {key: stored[key] for key in order if key in stored}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in ordered.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "{\n" + ",\n".join(lines) + "\n}\n")


def foreign(results: Iterable[dict[str, Any]]) -> str:
    """Name the versions of Python and torch in stored ``results`` that are not those in use."""
    ours = versions()
    names = ("python", "torch")
    others = {
        tuple(each["versions"][name] for name in names)
        for each in results
        if any(each["versions"][name] != ours[name] for name in names)
    }
    return " or ".join(f"Python {python} and torch {torch_}" for python, torch_ in sorted(others))


def versions() -> dict[str, str]:
    """Return what a result depends on besides its configuration."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
        "machine": platform.machine(),
    }
