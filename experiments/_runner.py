"""Runs what takes longer than a notebook may, and keeps what came out.

An experiment is a list of runs. A run is a configuration and a seed; with the same versions on the
same kind of machine the two give the same result. Each result is written as soon as it is there, so
an experiment that was stopped goes on where it was, and a run whose configuration has changed is
made again.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
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
from tqdm import tqdm  # noqa: E402

# Within the package, so that a notebook finds them wherever it is installed.
RESULTS = Path(__file__).resolve().parent.parent / "src" / "slingshot" / "stored" / "experiments"


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
        for run, result in results(missing, execute, arguments.jobs):
            stored[run.key] = {
                "configuration": run.configuration,
                "result": result,
                "versions": versions(),
            }
            write(file, stored, order)
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
    """Make the runs, ``jobs`` at a time, and yield each result as it comes.

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
                yield futures[future], future.result()
    finally:
        # Without this a Ctrl-C would wait for every run that has not begun.
        pool.shutdown(wait=False, cancel_futures=True)


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
