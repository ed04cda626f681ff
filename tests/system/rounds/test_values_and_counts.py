"""A value and a count in mode `secure`, from records over real processes to a hospital's report."""

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtwin.demo.consortium import LocalConsortium

from .conftest import Hospitals

SITES = ("aal", "bergen", "cork")
MOST = 4
PATIENTS = 240
POLICY = (
    ("epsilon_per_study", "10"),
    ("epsilon_lifetime", "30"),
    ("model_families", "[linear_regression, poisson_regression]"),
)
SHARED: dict[str, Any] = {
    "evaluation": {"unjudged": True},
    "training": {"rounds": 9, "learning_rate": 0.8},
    "privacy__mode": "secure",
    "privacy__epsilon": 8.0,
    "privacy__noise_multiplier": 1.9,
    "privacy__evaluation_noise": None,
    "sites__quorum": 3,
    "sites__deadline_s": 60,
    "sites__gathering_s": 1,
}
VALUE: dict[str, Any] = {
    "endpoint": {
        "name": "later pressure",
        "kind": "value",
        "codes": ["LOINC//8462-4"],
        "unit": "mm[Hg]",
        "horizon_days": 2,
        "center": 80,
        "scale": 10,
    },
    "model": {"family": "linear_regression"},
    "privacy__clipping_norm": 2.0,
}
COUNT: dict[str, Any] = {
    "endpoint": {
        "name": "admissions",
        "kind": "count",
        "codes": ["TEST//admission"],
        "horizon_days": 30,
        "most": MOST,
        "require_follow_up": False,
    },
    "model": {"family": "poisson_regression"},
    "privacy__clipping_norm": 2.0,
}


class Clinics(Hospitals):
    """Hospitals whose patients come again: a pressure a day later, admissions in the days after."""

    mapping = "\n".join(
        [
            "name: visits",
            "format: csv",
            'missing: [""]',
            "subject: {row_number: true}",
            "time: {date: 2020-07-01}",
            "birth: {age_column: age}",
            "sex: {column: sex, male: [m], female: [f]}",
            "events: [{code: TEST//visit}]",
            "columns:",
            '  pressure: {code: LOINC//8480-6, unit: "mm[Hg]"}',
            '  later: {code: LOINC//8462-4, unit: "kPa", offset_days: 1}',
            *(
                f"  again{day}: {{code: TEST//admission, kind: presence, offset_days: {day}}}"
                for day in range(1, MOST + 2)
            ),
        ]
    )

    @staticmethod
    def write_table(file: Path, patients: int, steep: float = 1.0) -> None:
        """The later pressure is 80 + 12 z mmHg with sd 5, admissions come at exp(z - 0.5)."""
        rng = random.Random(file.stem)
        again = [f"again{day}" for day in range(1, MOST + 2)]
        lines = [",".join(["age,sex,pressure,later", *again])]
        for _ in range(patients):
            z = steep * rng.uniform(-1.5, 1.5)
            later = (80 + 12 * z + rng.gauss(0, 5)) / 7.50062
            chance = min(math.exp(z - 0.5) / len(again), 1.0)
            marks = ["yes" if rng.random() < chance else "no" for _ in again]
            row = f"{rng.randint(40, 80)},{rng.choice('mf')},{130 + 20 * z:.1f},{later:.4f}"
            lines.append(",".join([row, *marks]))
        file.write_text("\n".join(lines) + "\n")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clinics(
    tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]
) -> Iterator[Clinics]:
    """Three of them, with both studies learned and released."""
    folder = tmp_path_factory.mktemp("clinics")
    with LocalConsortium(folder=folder / "consortium") as consortium:
        made = Clinics(consortium, wait_until)
        for name in SITES:
            made.admit(name, PATIENTS, *POLICY)
        made.start(*SITES)
        plans = [
            made.plan("pressure-later", **SHARED | VALUE),
            made.plan("again", **SHARED | COUNT),
        ]
        for plan in plans:
            made.open(plan)
        for plan in plans:
            made.wait_end(plan.study, 120)
            assert made.state(plan.study) == "finished: ", made.journal(plan.study)
            home = ("--home", str(consortium.server))
            consortium.run("server", "release", plan.study, *home, *consortium.keys)
        yield made
        made.store.close()


def report(clinics: Clinics, study: str, *words: str) -> str:
    home = ("--home", str(clinics.consortium.site("aal")))
    return clinics.consortium.run("client", "report", study, *home, *words)


def test_a_secure_study_of_a_value_reaches_the_hospitals_report(clinics: Clinics) -> None:
    found = json.loads(report(clinics, "pressure-later", "--json"))
    assert (found["kind"], found["unit"]) == ("value", "mm[Hg]")
    assert found["training_patients"] + found["held_out_patients"] == PATIENTS
    before, alone = found["before"], found["no_model"]
    assert before["mean_seen"] == pytest.approx(80, abs=5)
    assert alone["explained"] <= 0
    assert before["explained"] > 0.5  # of 81 % that can be
    assert before["mean_absolute_error"] < 0.8 * alone["mean_absolute_error"]
    shown = report(clinics, "pressure-later")
    assert "in mm[Hg]" in shown
    for word in ("no model", "explained", "calibration slope"):
        assert word in shown


def test_a_secure_study_of_a_count_reaches_the_hospitals_report(clinics: Clinics) -> None:
    found = json.loads(report(clinics, "again", "--json"))
    before, alone = found["before"], found["no_model"]
    assert found["kind"] == "count"
    assert before["mean_predicted"] == pytest.approx(before["mean_seen"], rel=0.3)
    assert alone["deviance_explained"] <= 0
    assert before["deviance_explained"] > 0.1
    said = clinics.consortium.run(
        *("client", "check", "--study", "again"),
        *("--home", str(clinics.consortium.site("aal"))),
    )
    assert "beyond the plan's bounds, 0 to 4" in said


def test_nothing_but_parts_of_sums_has_left(clinics: Clinics) -> None:
    for study in ("pressure-later", "again"):
        for name in SITES:
            held = [item.held for item in clinics.left(name) if item.study == study]
            assert held
            assert all(
                text.startswith(
                    ("this hospital takes part", "step of a secure", "part of a secure")
                )
                for text in held
            ), held
