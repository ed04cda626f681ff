"""A model of each family, learned over rounds in mode `local` from records with a signal in them.

What a hospital reads in its own report must say that the model beats the mean, and by how much.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedtwin_client.cohort.rows import CohortRows, build_cohort
from fedtwin_client.store.timeline import Timeline
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_client.training.noise import SeededNoise
from fedtwin_protocol.parameters import flatten, initial_parameters, unflatten
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan

from .conftest import Patient, Record, after, plan, timeline, visit

NOW = after(100)
PATIENTS = 400
WEIGHT_NOW = {
    "name": "weight",
    "kind": "number",
    "codes": ["LOCAL//weight"],
    "unit": "kg",
    "plausible": [20, 300],
    "center": 70,
    "scale": 10,
}
SEQUENCE = {
    "vocabulary": [{"code": "LOCAL//alarm"}, {"code": "LOCAL//calm"}],
    "most_records": 6,
}
STEPS = {
    "training": {"mechanism": "local_steps", "rounds": 6, "learning_rate": 2.0, "local_steps": 8},
    "aggregation": {"rule": "mean"},
}


def patient(rng: np.random.Generator) -> Patient:
    """Weight says what weighs later and how many events come; alarms say whether 'other' comes."""
    size = rng.normal()
    records = [visit(), Record(code="seen", day=90)]
    records.append(Record(code="weight", day=-2, value=round(70 + 10 * size, 2), unit="kg"))
    later = 75 + 8 * size + 4 * rng.normal()
    records.append(Record(code="weight", day=3, value=round(later * 1000), unit="g"))
    many = rng.poisson(np.exp(0.7 * size))
    records += [Record(code="event", day=day) for day in 1 + np.arange(many) / 24]
    alarms = rng.random(4) < rng.random()
    for back, alarm in enumerate(alarms, start=3):
        records.append(Record(code="alarm" if alarm else "calm", day=-back))
    if rng.random() < 1 / (1 + np.exp(-2.0 * (alarms.sum() - 2))):
        records.append(Record(code="other", day=float(rng.integers(1, 31))))
    return Patient(records=tuple(records))


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    rng = np.random.default_rng(4)
    folder = tmp_path_factory.mktemp("hospital")
    return timeline(folder, [patient(rng) for _ in range(PATIENTS)])[0]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small sums on several threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learned(asked: StudyPlan, rows: CohortRows) -> dict[str, Any]:
    """Rounds as the coordinator of one site would make them, and the report of the last model."""
    app = BuiltIn(asked, rows, SeededNoise(3))
    model, count = initial_parameters(asked), float((~rows.holdout).sum())
    for number in range(1, asked.training.rounds + 1):
        payload = Payload(arrays={"arrays": model})
        task = TaskInput(kind="train", round_number=number, payload=payload, reported_count=count)
        arrays = app.answer(task).arrays["arrays"]
        if asked.training.mechanism == "local_steps":
            model = {name: np.array(part) for name, part in arrays.items()}
            continue
        step = asked.training.learning_rate * np.asarray(arrays["gradient_sum"]) / count
        model = unflatten(flatten(model) - step, model)
    return app.local_report(model)


def asked_of(kind: str, family: str = "", **changes: Any) -> StudyPlan:
    fields: dict[str, Any] = {
        "features": [WEIGHT_NOW],
        "training": {"rounds": 30, "learning_rate": 0.6},
        "privacy__noise_multiplier": 1.0,
        "privacy__clipping_norm": 2.0,
    }
    if kind != "value":
        fields["endpoint__codes"] = ["LOCAL//event" if kind == "count" else "LOCAL//other"]
    return plan(kind, family, **(fields | changes))


def test_a_value_is_foretold_in_its_unit(hospital: Timeline) -> None:
    asked = asked_of("value")
    rows = build_cohort(hospital, asked, NOW)
    report = learned(asked, rows)
    assert (report["kind"], report["unit"]) == ("value", "kg")
    before, alone = report["before"], report["no_model"]
    assert before["patients"] == int(rows.holdout.sum()) == report["held_out_patients"]
    assert before["explained"] > 0.7  # of 80 % that can be
    assert alone["explained"] == pytest.approx(0, abs=1e-9)
    assert alone["calibration_slope"] is None
    assert before["root_mean_squared_error"] == pytest.approx(4, abs=0.7)
    assert before["mean_absolute_error"] < 0.6 * alone["mean_absolute_error"]
    assert before["mean_predicted"] == pytest.approx(before["mean_seen"], abs=1.5)
    assert before["mean_seen"] == pytest.approx(75, abs=2)
    assert 0.85 < before["calibration_slope"] < 1.15


def test_a_value_that_is_out_of_place_is_put_right_by_the_line(hospital: Timeline) -> None:
    asked = asked_of("value")
    rows = build_cohort(hospital, asked, NOW)
    app = BuiltIn(asked, rows, SeededNoise(3))
    report = app.local_report({"weights": np.array([0.4]), "intercept": np.array([-1.0])})
    assert report["before"]["explained"] < 0
    assert report["after"]["explained"] > 0.7
    assert report["recalibration"]["slope"] == pytest.approx(2.0, abs=0.15)
    # 75 + 8 s from 60 + 4 s kilograms: twice that, less 45.
    assert report["recalibration"]["intercept"] == pytest.approx(-45, abs=9)


def test_a_count_is_foretold_with_its_deviance(hospital: Timeline) -> None:
    asked = asked_of("count")
    report = learned(asked, build_cohort(hospital, asked, NOW))
    before, alone = report["before"], report["no_model"]
    assert before["deviance_explained"] > 0.2
    assert alone["deviance_explained"] == pytest.approx(0, abs=1e-9)
    assert before["mean_predicted"] == pytest.approx(before["mean_seen"], rel=0.25)
    assert before["mean_absolute_error"] < alone["mean_absolute_error"]
    assert report["after"]["deviance_explained"] > 0.2
    assert report["recalibration"]["slope"] == pytest.approx(1, abs=0.3)


def test_a_time_is_ordered_and_its_risk_calibrated(hospital: Timeline) -> None:
    asked = asked_of(
        "time_to_event",
        features=[
            {"name": "alarm", "kind": "presence", "codes": ["LOCAL//alarm"], "window_days": 4},
            {"name": "older", "kind": "presence", "codes": ["LOCAL//alarm"]},
        ],
        model={"family": "discrete_hazard", "initial_intercept": -1.0},
    )
    report = learned(asked, build_cohort(hospital, asked, NOW))
    before, alone = report["before"], report["no_model"]
    assert before["concordance"] > 0.6
    assert alone["concordance"] == alone["auroc"] == 0.5
    assert before["brier"] < alone["brier"] - 0.02
    assert 0.8 < before["expected_over_observed"] < 1.25


@pytest.mark.parametrize("family", ["network", "transformer", "recurrent"])
def test_risks_are_read_from_records(hospital: Timeline, family: str) -> None:
    model = {"family": family, "width": 8, "heads": 2, "layers": 1, "seed": 1}
    model["hidden"] = [8] if family == "network" else []
    asked = asked_of("event", family, sequence=SEQUENCE, model=model, **STEPS)
    rows = build_cohort(hospital, asked, NOW)
    report = learned(asked, rows)
    before, alone = report["before"], report["no_model"]
    assert before["auroc"] > 0.75
    assert alone["auroc"] == 0.5
    assert report["after"]["brier"] < alone["brier"] - 0.03
    if family == "network":
        untold = replace(rows, labels=np.random.default_rng(5).permutation(rows.labels))
        assert learned(asked, untold)["before"]["auroc"] < 0.65


def test_a_network_reads_columns_alone_too(hospital: Timeline) -> None:
    asked = asked_of(
        "event",
        "network",
        model={"family": "network", "hidden": [8], "seed": 1},
        endpoint__codes=["LOCAL//event"],
        **STEPS,
    )
    report = learned(asked, build_cohort(hospital, asked, NOW))
    assert report["before"]["auroc"] > 0.65
    assert report["before"]["brier"] < report["no_model"]["brier"]


def test_without_held_out_patients_there_are_no_figures(hospital: Timeline) -> None:
    for kind in ("value", "count", "time_to_event", "event"):
        asked = asked_of(kind, cohort={"index": {"codes": ["LOCAL//visit"]}, "holdout_fraction": 0})
        app = BuiltIn(asked, build_cohort(hospital, asked, NOW), SeededNoise(3))
        report = app.local_report(initial_parameters(asked))
        for when in ("before", "after", "no_model"):
            assert report[when].pop("patients") == 0
            assert not any(report[when].values()), (kind, report[when])


@pytest.mark.parametrize("kind", ["value", "count", "time_to_event", "event"])
def test_held_out_patients_put_nothing_right(hospital: Timeline, kind: str) -> None:
    """Recalibration and the mean alone would flatter if they had seen whom they are tried on."""
    asked = asked_of(kind)
    rows = build_cohort(hospital, asked, NOW)
    turned = np.where(rows.holdout, 1 - rows.labels, rows.labels)
    parameters = initial_parameters(asked) | {"weights": np.array([0.7])}
    reports = [
        BuiltIn(asked, replace(rows, labels=labels), SeededNoise(3)).local_report(parameters)
        for labels in (rows.labels, turned)
    ]
    assert reports[0]["before"] != reports[1]["before"]
    assert reports[0]["recalibration"] == reports[1]["recalibration"]
    if kind in {"value", "count"}:
        alone = [report["no_model"]["mean_predicted"] for report in reports]
        assert alone[0] == alone[1]


def test_a_population_study_reports_the_hospitals_own_shift(hospital: Timeline) -> None:
    """Later weight is 75 + 8 s: of a population that is 3 kg lighter, this hospital is +3 kg."""
    asked = asked_of(
        "value",
        "linear_mixed_model",
        question="population",
        population={
            "intercept": {"mean": 72 - 56, "sd": 0.05},
            "coefficients": {"weight": {"mean": 0.8, "sd": 0.01}},
            "site_variance_ratio": 1.0,
        },
        training={"mechanism": "moments", "rounds": 1, "learning_rate": 1},
    )
    rows = build_cohort(hospital, asked, NOW)
    app = BuiltIn(asked, rows, SeededNoise(3))
    task = TaskInput(kind="train", round_number=1, payload=Payload(), reported_count=300.0)
    total = np.asarray(app.answer(task).arrays["arrays"]["gradient_sum"])
    arrays = initial_parameters(asked)
    sites = arrays.pop("sites")
    report = app.local_report(unflatten(total, arrays) | {"sites": sites + 2})
    shift = report["site_shift"]
    assert shift["mean"] == pytest.approx(3.0, abs=0.8)
    assert shift["scale"] == "none"
    assert 0 < shift["sd"] < shift["sd_between_patients"]
    before, after = report["before"], report["after"]
    assert after["mean_absolute_error"] < before["mean_absolute_error"]
    moved = after["mean_predicted"] - before["mean_predicted"]
    assert moved == pytest.approx(shift["mean"], abs=0.3)
