"""The runs of an experiment on a Dask cluster that the user has: keys go out, results come back.

A worker of the cluster is a machine with the same version of the course. It makes a run in a
process of its own, with one thread, as this machine would: runs that share a process would share
the state of its random numbers. A run whose worker dies is given to another. Workers store nothing;
each result comes back once and is stored once, by the process that asked for it.

The grader has its own way to a cluster (``slingshot_grader/cluster.py``), and the first lines of
both are alike. What both may import is the library alone, which knows no cluster.
"""

import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CONNECT_SECONDS = 30.0
Answer = dict[str, Any]


class ClusterError(Exception):
    """What keeps a cluster from making runs, as one line."""


def course_version(course: Path) -> str:
    """Hash all code of a course that a result depends on, and its facts."""
    result = hashlib.sha256()
    folders = (course / "experiments", course / "src" / "slingshot")
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    for path in sorted([*paths, course / "src" / "slingshot" / "facts.yml"]):
        result.update(path.relative_to(course).as_posix().encode())
        result.update(path.read_bytes())
    return result.hexdigest()


def results_of(
    address: str, experiment: str, keys: Sequence[str], course: Path, ours: dict[str, str]
) -> Iterator[tuple[str, Answer]]:
    """Make runs on the cluster at ``address``, and yield key and answer of each as it comes.

    An answer holds ``result`` and ``versions``, or ``raised``. Raise ``ClusterError`` where nobody
    answers, where a worker has another version of the course, of Python or of torch than ``ours``,
    and where a run has brought down one worker after another.
    """
    with connect(address) as client:
        from distributed import as_completed

        wanted = course_version(course)

        # A function of this module would be sent by its name, which no worker can import.
        def make(key: str) -> Answer:
            return make_there(experiment, key, wanted)

        futures = {client.submit(make, key, pure=False): key for key in keys}
        try:
            for future in as_completed(futures):  # type: ignore[no-untyped-call]
                key = futures.pop(future)
                yield key, read_answer(future, key, wanted, ours)
        finally:
            client.cancel(list(futures))


@contextlib.contextmanager
def connect(address: str) -> Iterator[Any]:
    """A client of the scheduler; raise ``ClusterError`` where there is none, or no worker."""
    try:
        import cloudpickle
        from distributed import Client
    except ImportError:
        raise ClusterError("a scheduler needs `pip install distributed`") from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterError(f"no scheduler answers at {address}: {error}") from error
    with client:
        if not client.nthreads():  # type: ignore[no-untyped-call]
            raise ClusterError(f"the scheduler at {address} has no workers")
        # A worker cannot import this module before it knows where its course is.
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield client


def read_answer(future: Any, key: str, wanted: str, ours: dict[str, str]) -> Answer:  # noqa: ANN401
    """What a worker says of a run; raise ``ClusterError`` where it may not be stored."""
    try:
        answer: Answer = future.result()
    except Exception as error:
        words = f"{type(error).__name__}: {error}"[:300]
        raise ClusterError(f"the cluster says of the run {key}: {words}") from error
    if answer.get("version") != wanted:
        raise ClusterError("a worker of the cluster has another version of the course")
    theirs = answer.get("versions", ours)
    if any(theirs[name] != ours[name] for name in ("python", "torch")):
        raise ClusterError(
            f"a worker of the cluster has Python {theirs['python']} and torch {theirs['torch']}, "
            f"this machine Python {ours['python']} and torch {ours['torch']}"
        )
    return answer


def make_there(experiment: str, key: str, wanted: str) -> Answer:
    """Make a run on this worker; return its result, and which version of the course made it."""
    import slingshot

    course = Path(slingshot.__file__).parents[2]
    answer: Answer = {"version": course_version(course)}
    if answer["version"] != wanted:
        return answer
    script = course / "experiments" / f"{experiment}.py"
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        words = [sys.executable, str(script), "--one", key]
        # Its input is closed when this worker ends, however it ends, and then it ends itself.
        with subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        ) as process:
            assert process.stdout is not None
            said = process.stdout.read()
            process.wait()
        if process.returncode != 0:
            errors.seek(0)
            return {**answer, "raised": errors.read()[-2000:] or f"status {process.returncode}"}
    return {**answer, **json.loads(said)}
