"""The stored results of experiments, and what is asked of them in every notebook that reads them.

An experiment is a set of runs; runs of one name differ in their seed. A notebook that trains a
short run beside the stored ones asks three things: what the seeds gave, whether they were made with
the settings on the page, and whether what came out here is near them.
"""

import importlib.resources
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from scipy.stats import fisher_exact

from slingshot import require
from slingshot.stats import wilson_interval

LEAST_CHANCE: Final = 1e-4
"""What comes more rarely by chance is not near, in `is_near`."""


class Count(NamedTuple):
    """``right`` answers of ``n``."""

    right: int
    n: int

    @property
    def share(self) -> float:
        """Right answers over all."""
        return self.right / self.n

    def percent(self) -> str:
        """As ``97 (95-98)``: the share and its 95% Wilson interval, in percent."""
        share, low, high = (round(100 * x) for x in wilson_interval(self.right, self.n))
        return f"{share} ({low}-{high})"


class UnknownRunError(ValueError, KeyError):
    """A run that is not stored; the message names those that are."""

    def __str__(self) -> str:
        """Return the message as it is, and not quoted as a key."""
        return ValueError.__str__(self)


class StoredResults(Mapping[str, dict[str, Any]]):
    """What an experiment stored: by run and seed its ``"configuration"`` and its ``"result"``.

    The key of a run is its name, a slash and its seed, as in ``"dense/0"``.
    """

    def __init__(self, experiment: str, runs: Mapping[str, dict[str, Any]]) -> None:
        """Hold the ``runs`` of an ``experiment``."""
        self.experiment = experiment
        self._runs = runs

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return one run of one seed; ``ValueError`` names those that there are."""
        if key not in self._runs:
            raise UnknownRunError(f"{key!r} is no stored run of {self.experiment}; {self._known()}")
        return self._runs[key]

    def __iter__(self) -> Iterator[str]:
        """Go through the keys, in the order in which they are stored."""
        return iter(self._runs)

    def __len__(self) -> int:
        """Return how many runs there are, all seeds counted."""
        return len(self._runs)

    def _known(self) -> str:
        if not self._runs:
            return "it has no runs, make them with `make experiments`"
        names = dict.fromkeys(key.rpartition("/")[0] for key in self._runs)
        return f"its runs are {', '.join(names)}, each with a seed, as in {next(iter(self._runs))}"

    def seeds(self, run: str) -> list[int]:
        """Return the seeds of a run, from the smallest to the largest.

        Raises ``ValueError`` for a run that is not stored.
        """
        parts = [key.rpartition("/") for key in self._runs]
        found = sorted(int(seed) for name, _, seed in parts if name == run)
        if not found:
            raise UnknownRunError(f"{run!r} is no stored run of {self.experiment}; {self._known()}")
        return found

    def of(self, run: str) -> list[dict[str, Any]]:
        """Return the results of all seeds of a run, in order of seed."""
        return [self._runs[f"{run}/{seed}"]["result"] for seed in self.seeds(run)]

    def configuration(self, run: str) -> dict[str, Any]:
        """Return with what a run was made, at its first seed."""
        configuration: dict[str, Any] = self[f"{run}/{self.seeds(run)[0]}"]["configuration"]
        return configuration

    def counts(self, run: str, which: str = "hard", when: str = "after") -> list[Count]:
        """Return the right answers of each seed of a run of reasoning, ``when`` it was measured.

        ``which`` is the kind of problems, as the result names it. Raises ``ValueError`` for what
        was not measured.
        """
        found = []
        for result in self.of(run):
            measured = result.get(when)
            counts = measured if isinstance(measured, dict) else {}
            try:
                found.append(Count(counts[which]["right"], counts[which]["n"]))
            except (KeyError, TypeError):
                there = sorted(counts) or f"{measured!r:.99}" if when in result else sorted(result)
                raise ValueError(
                    f"{run} has no {which!r} {when!r} with 'right' and 'n'; there is {there}"
                ) from None
        return found

    def check(self, run: str, **settings: Any) -> None:  # noqa: ANN401 whatever a run was made with
        """Raise ``ValueError`` unless all seeds of a run were made with these ``settings``.

        A setting is a dataclass, or whatever JSON can hold; a field that is ``None`` need not be
        stored. Raises it too for a setting that is not stored, and for what JSON cannot hold.
        """
        for seed in self.seeds(run):
            stored = self._runs[f"{run}/{seed}"]["configuration"]
            for name, setting in settings.items():
                if name not in stored:
                    raise ValueError(
                        f"{run}/{seed} was made without a setting {name}; its settings are "
                        f"{', '.join(stored)}"
                    )
                ours, theirs = _plain(name, setting), _plain(name, stored[name])
                if ours != theirs:
                    raise ValueError(
                        f"{run}/{seed} was made with {name} {_differing(theirs, ours)}; the page "
                        "has another: change the page, or make the experiment again"
                    )


def stored_results(experiment: str) -> StoredResults:
    """Return what ``experiment`` stored.

    Raises ``ValueError`` naming the experiments that are stored when this one is not.
    """
    return StoredResults(experiment, _stored("experiments", experiment))


def stored_benchmark(name: str) -> dict[str, Any]:
    """Return what a benchmark measured: its ``"machine"``, its ``"rounds"`` and its ``"rows"``.

    Raises ``ValueError`` naming the benchmarks that are stored when this one is not.
    """
    return _stored("benchmarks", name)


def is_near(right: int, n: int, counts: Sequence[Count]) -> bool:
    """Whether ``right`` answers of ``n`` are near those of the stored seeds.

    They are if their share lies within the range of the seeds', or if the nearest seed could be the
    same model: if one share is behind both, counts as far apart as these come in at least one of
    10,000 comparisons (Fisher's exact test). So chance alone says "not near" more rarely than that,
    whatever the share. Raises ``ValueError`` without counts, or for counts that cannot be.

    Source: Fisher, The Design of Experiments (1935), chapter 2.
    """
    if not counts:
        raise ValueError("counts is empty; give those of at least one stored seed")
    for count in [Count(right, n), *counts]:
        require.whole("right", count.right, 0, require.whole("n", count.n, 1))
    share = right / n
    if min(count.share for count in counts) <= share <= max(count.share for count in counts):
        return True
    nearest = min(counts, key=lambda count: abs(count.share - share))
    cells = [[right, n - right], [nearest.right, nearest.n - nearest.right]]
    return bool(fisher_exact(cells).pvalue >= LEAST_CHANCE)


def _stored(kind: str, name: str) -> dict[str, Any]:
    """Read a file of ``stored``, which is part of the package and so is there without a course."""
    files = (importlib.resources.files("slingshot") / "stored" / kind).iterdir()
    known = {file.name.removesuffix(".json"): file for file in files if file.name.endswith(".json")}
    if name not in known:
        raise ValueError(f"{name!r} is none of the stored {kind}; give {', '.join(sorted(known))}")
    content: dict[str, Any] = json.loads(known[name].read_text("utf-8"))
    return content


def _plain(name: str, setting: Any) -> Any:  # noqa: ANN401 whatever a run was made with
    """A setting as JSON has it: lists for tuples, and no field that is ``None``."""
    try:
        return _without_none(json.loads(json.dumps(setting, default=asdict)))
    except TypeError as error:
        raise ValueError(
            f"{name} is {setting!r:.99}; give a dataclass, or what JSON can hold"
        ) from error


def _without_none(value: Any) -> Any:  # noqa: ANN401 JSON
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):  # an element is no field, and is there also where it is None
        return [_without_none(each) for each in value]
    return value


def _differing(theirs: Any, ours: Any) -> str:  # noqa: ANN401 JSON
    """What differs: the fields if both have some, else both values."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names = sorted(
            name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)
        )
        return ", ".join(f"{name}={theirs.get(name)!r} (not {ours.get(name)!r})" for name in names)
    return f"{theirs!r}, not {ours!r}"
