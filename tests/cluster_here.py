"""A Dask cluster on this machine: a scheduler and two workers, of one thread each."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from test_grade import wait_until


@dataclass
class Running:
    """A scheduler with two workers."""

    address: str
    workers: list["subprocess.Popen[bytes]"]


@contextlib.contextmanager
def cluster_here(place: Path, source: Path) -> Iterator[Running]:
    """A cluster whose workers import from ``source``, ended whatever happens."""
    env = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    address = place / "scheduler.json"
    words = [sys.executable, "-m"]
    here = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(address)]
    processes = [subprocess.Popen([*words, "distributed.cli.dask_scheduler", "--port", "0", *here],
                                  env=env, stderr=subprocess.DEVNULL)]  # fmt: skip
    try:
        wait_until(lambda: address.is_file() and address.stat().st_size > 0)
        where = str(json.loads(address.read_text())["address"])
        own = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        for name in ("one", "two"):
            own_place = ["--local-directory", str(place / name), "--name", name]
            arguments = [*words, "distributed.cli.dask_worker", where, *own, *own_place]
            processes.append(subprocess.Popen(arguments, env=env, stderr=subprocess.DEVNULL))
        wait_until(lambda: count_workers(where) == 2)
        yield Running(where, processes[1:])
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def count_workers(address: str) -> int:
    """How many workers a scheduler has."""
    from distributed import Client

    with Client(address) as client:  # type: ignore[no-untyped-call]
        return len(client.nthreads())
