"""The same two apps on Flower's simulation engine give the model that live sites give."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fedtwin.demo.simulation import flower_plan, simulate
from fedtwin.demo.synthetic import PLAN, make_hospitals
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.training.built_in import load_rows
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.study import StudyPlan, plan_from_yaml

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SITES = {"quorum": 3, "smallest_cohort": 20}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Timelines of four synthetic hospitals."""
    folder = tmp_path_factory.mktemp("simulation")
    made = make_hospitals(folder / "exports", 3, 150, sites=4)["hospitals"]
    places = [folder / "stores" / name for name in made]
    for place in places:
        import_fhir([folder / "exports" / place.name], place, secret=b"s" * 32, now=NOW)
    return places


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedtwin.main", "demo", "simulate", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def simulated(plan: StudyPlan, stores: list[Path], folder: Path) -> dict[str, np.ndarray]:
    """The model of `simulate` in a process of its own, because the engine leaves some behind."""
    (folder / "plan.json").write_bytes(plan.to_bytes())
    code = f"""
import datetime, numpy, pathlib
from fedtwin.demo.simulation import simulate
from fedtwin_protocol.study import plan_from_bytes
plan = plan_from_bytes(pathlib.Path({str(folder / "plan.json")!r}).read_bytes())
stores = [pathlib.Path(store) for store in {[str(store) for store in stores]!r}]
model = simulate(plan, stores, datetime.datetime.fromisoformat({NOW.isoformat()!r}))
numpy.savez({str(folder / "model.npz")!r}, **model)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / "model.npz") as arrays:
        return dict(arrays)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("strategy", "options"),
    [("FedAvg", {}), ("FedAdam", {"eta": 0.3, "tau": 0.01})],
)
def test_the_simulated_model_is_that_of_the_sites(
    strategy: str, options: dict, stores: list[Path], flower_in_process: type, tmp_path: Path
) -> None:
    """`flower_in_process` gives what live sites give, bit by bit: see test_flower_strategies."""
    plan = flower_plan(strategy, options, sites=SITES)
    rows = {store.name: load_rows(plan, store, NOW) for store in stores}
    expected = flower_in_process(plan, rows, tmp_path).learn(1, plan.training.rounds)
    found = simulated(plan, stores, tmp_path)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-9, atol=1e-12)


@pytest.mark.simulation
def test_the_documented_command() -> None:
    done = run("--sites", "5", "--patients", "200")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("hospital-") == 5
    assert "FedAvg, 12 rounds" in done.stdout


@pytest.mark.simulation
def test_a_cohort_that_is_too_small_ends_in_its_sentence() -> None:
    done = run("--sites", "4", "--patients", "20")
    assert done.returncode == 2
    assert "asks for at least 50 patients" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="the engine is here")
def test_without_the_engine_the_command_says_how_to_install_it() -> None:
    done = run("--sites", "4")
    assert done.returncode == 2
    assert "'fedtwin[simulation]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_simulated_is_said(stores: list[Path]) -> None:
    with pytest.raises(PlanError, match="set rule 'flower'"):
        simulate(plan_from_yaml(PLAN), stores, NOW)
    with pytest.raises(PlanError, match="only 4 are simulated"):
        simulate(flower_plan("FedAvg", {}, sites={"quorum": 9}), stores, NOW)


def test_too_many_hospitals_and_too_few(tmp_path: Path) -> None:
    done = run("--sites", "0")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
