"""The runner of experiments, the experiments themselves, and what is stored of them."""

import copy
import importlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import _runner
import mixture
import pytest
import routers
import torch
from _runner import RESULTS, Run, Stored

from colophon import seeds_table
from slingshot import sizes
from slingshot.corpus import Corpus, Document, encode, train_tokenizer
from slingshot.moe import expert_load

EXPERIMENTS = sorted(path.stem for path in Path(_runner.__file__).parent.glob("[!_]*.py"))

# --- the runner --------------------------------------------------------------------------------


def execute(run: Run) -> dict[str, Any]:
    """Note that the run was made, then do what its configuration says. Runs in another process."""
    folder = Path(run.configuration["folder"])
    with (folder / "made").open("a") as made:
        made.write(f"{run.key}\n")
    if (folder / f"{run.name} fails").exists():
        wait_for("a/1", folder)
        raise ArithmeticError("diverged")
    if (folder / f"{run.name} is interrupted").exists():
        wait_for("a/1", folder)
        raise KeyboardInterrupt
    return {"loss": run.configuration["width"] + run.seed}


def wait_for(key: str, folder: Path) -> None:
    """Wait until the result of another run is on disk."""
    end = time.monotonic() + 600
    while key not in _runner.read(folder / "results" / "trial.json"):
        assert time.monotonic() < end, f"{key} was not stored"
        time.sleep(0.01)


class Bench:
    """A folder in which an experiment is run again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "results" / "trial.json"

    def runs(self, *names: str, width: int = 1) -> list[Run]:
        configuration = {"width": width, "folder": str(self.folder), "betas": [0.9, 0.98]}
        return [
            Run(name, seed, {**configuration, "seed": seed}) for name in names for seed in (0, 1)
        ]

    def main(self, runs: Sequence[Run], *argv: str) -> int:
        """Run the experiment, one run at a time so that the order is known."""
        arguments = ["--results", str(self.file.parent), "--jobs", "1", *argv]
        return _runner.main("trial", runs, execute, arguments)

    def made(self) -> list[str]:
        """What was run since this was last asked."""
        log = self.folder / "made"
        keys = log.read_text().split("\n")[:-1] if log.exists() else []
        log.unlink(missing_ok=True)
        return keys

    def stored(self) -> Stored:
        stored: Stored = json.loads(self.file.read_text())
        return stored


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_run_is_stored_with_its_configuration(bench: Bench) -> None:
    runs = bench.runs("wide", "narrow")
    assert bench.main(runs) == 0
    assert bench.made() == ["wide/0", "wide/1", "narrow/0", "narrow/1"]
    stored = bench.stored()
    assert list(stored) == [run.key for run in runs]
    assert stored["narrow/1"]["configuration"] == runs[3].configuration
    assert stored["narrow/1"]["result"] == {"loss": 2}
    assert stored["narrow/1"]["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_only_what_is_missing_or_changed_is_run(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.main(bench.runs("a"))
    bench.made()
    assert bench.main(bench.runs("a", "b")) == 0
    assert "trial: 2 of 4 runs are stored" in capsys.readouterr().out
    assert bench.made() == ["b/0", "b/1"]
    bench.main([*bench.runs("a"), *bench.runs("b", width=2)])
    assert bench.made() == ["b/0", "b/1"]
    assert bench.stored()["b/1"]["result"] == {"loss": 3}
    bench.main([*bench.runs("a"), *bench.runs("b", width=2)])
    assert bench.made() == []
    bench.main([*bench.runs("a"), *bench.runs("b", width=2)], "--again", "--only", "a")
    assert bench.made() == ["a/0", "a/1"]


@pytest.mark.parametrize("names", [("b",), ("b", "c")])
def test_runs_that_vanished_are_dropped(bench: Bench, names: tuple[str, ...]) -> None:
    bench.main(bench.runs("a", "b"))
    bench.main(bench.runs(*names))
    assert {key.partition("/")[0] for key in bench.stored()} == set(names)


def test_the_file_has_the_order_of_the_experiment(bench: Bench) -> None:
    runs = bench.runs("a", "b")
    bench.main(runs, "--only", "b")
    assert list(bench.stored()) == ["b/0", "b/1"]
    bench.main(runs)
    assert list(bench.stored()) == ["a/0", "a/1", "b/0", "b/1"]


def test_two_at_a_time_give_the_same_file(bench: Bench) -> None:
    runs = bench.runs("a", "b")
    bench.main(runs)
    one_by_one = bench.file.read_text()
    bench.main(runs, "--again", "--jobs", "2")
    assert bench.file.read_text() == one_by_one


@pytest.mark.parametrize("name", ["python", "torch"])
def test_results_of_two_versions_are_not_mixed(
    bench: Bench, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    bench.main(bench.runs("a"))
    stored = bench.stored()
    for each in stored.values():
        each["versions"][name] = "1.2.3"
    bench.file.write_text(json.dumps(stored))
    bench.made()
    assert bench.main(bench.runs("a")) == 0  # nothing is missing, so nothing is mixed
    assert bench.main(bench.runs("a", "b")) == 2
    assert bench.made() == []
    assert "1.2.3" in (message := capsys.readouterr().err)
    assert "--again" in message
    assert bench.main(bench.runs("a", "b"), "--again") == 0
    assert bench.made() == ["a/0", "a/1", "b/0", "b/1"]


def test_list_does_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(bench.runs("a"), "--list") == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["to do: a/0", "to do: a/1"]
    assert not bench.file.exists()
    bench.main(bench.runs("a"))
    bench.made()
    capsys.readouterr()
    before = bench.file.read_text()
    assert bench.main(bench.runs("a", "b"), "--list", "--only", "a") == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["nothing to do"]
    assert bench.main(bench.runs("b"), "--list") == 0
    assert bench.made() == []
    assert bench.file.read_text() == before


def test_an_unknown_name_is_answered_with_the_known(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(bench.runs("a", "b"), "--only", "a", "x", "w") == 2
    assert capsys.readouterr().err == "no run w, x; there are: a, b\n"
    assert not bench.file.exists()
    assert bench.made() == []


def test_no_jobs_are_refused(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(bench.runs("a"), "--jobs", "0")
    assert "--jobs is 0; give at least 1" in capsys.readouterr().err


def test_a_run_that_fails_is_named_and_leaves_the_earlier_ones(bench: Bench) -> None:
    runs = bench.runs("a", "b", "c")
    (bench.folder / "b fails").touch()
    with pytest.raises(ArithmeticError, match="diverged") as failure:
        bench.main(runs)
    assert failure.value.__notes__[-1] == "in the run b/0"
    assert list(bench.stored()) == ["a/0", "a/1"]
    (bench.folder / "b fails").unlink()
    bench.made()
    assert bench.main(runs) == 0
    assert list(bench.stored()) == [run.key for run in runs]
    assert not {"a/0", "a/1"} & set(bench.made())


def test_ctrl_c_leaves_the_earlier_runs(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    runs = bench.runs("a", "b")
    (bench.folder / "b is interrupted").touch()
    assert bench.main(runs) == 130
    assert "stopped; what is done is in trial.json, and the rest" in capsys.readouterr().out
    assert list(bench.stored()) == ["a/0", "a/1"]


def test_the_file_is_replaced_whole_or_not_at_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _runner.write(bench.file, {"a": {"result": 1}}, ["a"])
    before = bench.file.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        _runner.write(bench.file, {"a": {"result": torch.ones(1)}}, ["a"])
    assert bench.file.read_bytes() == before

    def killed(source: Path, target: Path) -> None:
        raise OSError("killed here")

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(OSError, match="killed here"):
        _runner.write(bench.file, {"a": {"result": 2}}, ["a"])
    assert bench.file.read_bytes() == before


def test_no_file_means_no_results(tmp_path: Path) -> None:
    assert _runner.read(tmp_path / "none.json") == {}


# --- what is stored ----------------------------------------------------------------------------


def differences(runs: Sequence[Run], stored: Stored) -> list[str]:
    """How the stored results differ from what the code would run."""
    wanted = {run.key: run.configuration for run in runs}
    return [
        *(f"{key} is missing" for key in wanted if key not in stored),
        *(f"{key} is of no run" for key in stored if key not in wanted),
        *(
            f"{key} is of another configuration"
            for key in wanted
            if key in stored and stored[key]["configuration"] != wanted[key]
        ),
    ]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_stored_results_are_those_of_the_code(experiment: str) -> None:
    runs = importlib.import_module(experiment).runs()
    stored = _runner.read(RESULTS / f"{experiment}.json")
    assert differences(runs, stored) == [], f"run `python experiments/{experiment}.py`"
    assert list(stored) == [run.key for run in runs]


def test_a_result_of_another_configuration_is_noticed() -> None:
    runs = mixture.runs()
    stored = {run.key: {"configuration": copy.deepcopy(run.configuration)} for run in runs}
    stored = json.loads(json.dumps(stored))
    assert differences(runs, stored) == []
    stored["dense/0"]["configuration"]["train"]["learning_rate"] = 0.02
    del stored["none/1"]
    stored["gone/0"] = {"configuration": {}}
    assert differences(runs, stored) == [
        "none/1 is missing",
        "gone/0 is of no run",
        "dense/0 is of another configuration",
    ]


def test_every_stored_file_has_its_experiment() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} <= set(EXPERIMENTS)


def test_the_book_counts_the_seeds_of_each_run(tmp_path: Path) -> None:
    keys = ["a, b/0", *(f"c/{seed}" for seed in range(3)), *(f"d/{seed}" for seed in range(5))]
    (tmp_path / "x.json").write_text(json.dumps(dict.fromkeys([*keys, "e/7"])))
    assert seeds_table([tmp_path / "x.json"])[2:] == ["| `x` | 2 | 1 | 1 |"]
    assert len(seeds_table(sorted(RESULTS.glob("*.json")))) == 2 + len(EXPERIMENTS)
    with pytest.raises(ValueError, match="name their folder"):
        seeds_table([])


# --- mixtures against dense models -------------------------------------------------------------


def test_every_configuration_can_be_built() -> None:
    runs = mixture.runs()
    assert len({run.key for run in runs}) == len(runs)
    for run in runs:
        model, train, balancing = mixture.build(run.configuration)
        assert json.loads(json.dumps(run.configuration)) == run.configuration
        assert mixture.described(model.config) == run.configuration["model"]
        assert mixture.described(balancing) == run.configuration["balancing"]
        assert (train.steps if train else 0) == run.configuration["train"]["steps"]
        assert run.configuration["seed"] == run.seed
        frozen = [not router.weight.requires_grad for router in model.routers]
        assert all(frozen) if run.name == "frozen router" else not any(frozen)


def test_a_hashed_model_differs_from_the_learned_one_in_its_router_alone() -> None:
    (run,) = (run for run in mixture.runs() if run.key == "mixture 16/1")
    learned, hashed = (mixture.build(run.configuration)[0] for _ in range(2))
    text = torch.randint(0, 512, (20_000,), generator=torch.Generator().manual_seed(0))
    routers.hash_tokens(hashed, text, seed=1)
    ours, theirs = dict(hashed.named_parameters()), dict(learned.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    tables = [hashed.state_dict()[f"layers.{layer}.ffn.router.table"] for layer in (0, 1)]
    assert not torch.equal(*tables)
    for table in tables:  # whoever gets a token had the least load so far
        load = expert_load(table[text], 16)
        assert load.max() - load.min() <= text.bincount().max()


def test_the_seed_draws_the_weights() -> None:
    first, second = (run for run in mixture.runs() if run.key in ("dense/0", "dense/1"))
    models = [mixture.build(run.configuration)[0] for run in (first, first, second)]
    weights = [model.layers.state_dict()["0.attention.query.weight"] for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", ["dense wide, equal FLOPs", "dense narrow, equal FLOPs"])
def test_equal_flops_are_equal_within_half_a_step(name: str) -> None:
    arm = mixture.arms()[name]
    flops_per_step = mixture.multiplied(arm["model"])
    wanted = mixture.STEPS * mixture.multiplied(mixture.MIXTURE)
    assert abs(arm["steps"] * flops_per_step - wanted) <= flops_per_step / 2


def test_dense_wide_holds_what_the_mixture_holds_within_half_a_channel() -> None:
    wide = mixture.arms()["dense wide"]["model"]
    wanted, held = (
        sizes.count_parameters(config.sizes()).total for config in (mixture.MIXTURE, wide)
    )
    channel = 3 * wide.d_model * wide.n_layers
    assert abs(held - wanted) <= channel / 2
    assert wide.experts is None


def test_dense_and_mixture_work_equally_on_a_token() -> None:
    dense, sparse = mixture.multiplied(mixture.DENSE), mixture.multiplied(mixture.MIXTURE)
    assert sparse == pytest.approx(dense, rel=0.005)
    assert replace(mixture.MIXTURE, experts=None) == mixture.DENSE


def test_shares_in_blocks_and_what_is_dropped_by_hand() -> None:
    blocks = mixture.in_blocks(torch.arange(20.0))
    assert blocks == [7.5, 17.5]  # sixteen values, then the four that are left
    loads = torch.tensor([[4.0, 0.0], [2.0, 2.0]])  # capacity 2 an expert at a factor of 1
    assert mixture.dropped(loads, 1.0) == pytest.approx(2 / 8)
    assert mixture.dropped(loads, 1.5) == pytest.approx(1 / 8)
    assert mixture.dropped(loads, 2.0) == 0


@pytest.fixture
def small_corpus(monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """Two short documents in place of the standard library."""
    source = Path(mixture.__file__).read_text()
    documents = [Document("a", source[:4000]), Document("b", source[4000:6000])]
    tokenizer = train_tokenizer([source], 300)
    tokens, numbers = encode(tokenizer, documents)
    corpus = Corpus(tokens, tokens, numbers, ("a", "b"), tokenizer, bytes_per_token=2.0)
    monkeypatch.setattr(mixture, "corpus", lambda: corpus)
    return corpus


def short(name: str, seed: int, steps: int) -> Run:
    """A run of the experiment, with fewer and smaller steps."""
    (run,) = (run for run in mixture.runs() if (run.name, run.seed) == (name, seed))
    configuration = copy.deepcopy(run.configuration)
    configuration["train"] |= {"steps": steps, "batch_size": 2, "sequence_length": 16}
    return replace(run, configuration=configuration)


@pytest.mark.parametrize("name", ["dense", "mixture 16", "sequence", "frozen router", "untrained"])
def test_a_run_gives_what_json_can_store(name: str, small_corpus: Corpus) -> None:
    steps = 0 if name == "untrained" else 20
    result = mixture.execute(short(name, 0, steps))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["tokens"] == steps * 32
    assert result["flops"] == 6 * result["active"] * steps * 32
    assert len(result["curve"]) == math.ceil(steps / mixture.CURVE_STEPS)
    assert 0 < result["held_out_loss"] < 8
    counts = result["tokens_by_document"]
    lengths = small_corpus.held_out_documents.bincount().tolist()
    assert counts == [lengths[0] - 1, lengths[1]]  # nothing predicts the first token
    by_document = sum(
        n * loss for n, loss in zip(counts, result["loss_by_document"], strict=True)
    ) / sum(counts)
    assert by_document == pytest.approx(result["held_out_loss"], abs=1e-4)
    assert len(result["layers"]) == (0 if name == "dense" else 2)
    for layer in result["layers"]:
        assert sum(layer["held_out_load"]) == len(small_corpus.held_out) // 128 * 128 * 2
        assert layer["information"]["token"] <= layer["information"]["entropy"] <= 4
        assert ("load_shares" in layer) == (steps > 0)


def test_a_run_repeats_and_keeps_the_shares_of_the_first_seed_only(small_corpus: Corpus) -> None:
    first, again, other = (mixture.execute(short("mixture 16", seed, 4)) for seed in (0, 0, 1))
    for result in (first, again, other):
        result.pop("seconds")
    assert first == again
    assert first["held_out_loss"] != other["held_out_loss"]
    assert len(first["layers"][0]["load_shares"]) == 16
    assert other["layers"][0]["load_shares"] == []
