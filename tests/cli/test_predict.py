"""Predictions from files by command: what the numbers are, and what was wrong with a file."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedtwin_protocol.parameters import initial_parameters
from fedtwin_protocol.study import StudyPlan
from fedtwin_research.library import Library, read_release, read_trust

from .conftest import PLANS, Type, publish

STUDY = "coronary-risk-5y"
GLUCOSE = {"code": "LOINC//2345-7", "unit": "mg/dL", "plausible": [20, 600], "center": 100}
AGE = {"name": "age", "kind": "age", "unit": "a", "center": 60.0, "scale": 10.0}
SMOKING = {"name": "smoking", "kind": "category", "categories": ["0", "1"], "codes": ["TEST//s"]}
ENDPOINT = {"name": "it", "codes": ["TEST//e"], "horizon_days": 365}


def fetched(tmp_path: Path, family: str, endpoint: dict[str, Any], **changes: Any) -> None:
    """A model of the family lies in the library; a smoker has a score that is one higher."""
    value = yaml.safe_load((PLANS / "synthetic.yaml").read_text())
    value["privacy"] |= {"evaluation_noise": None, "vote_noise": None}
    value |= {
        "features": [AGE, SMOKING],
        "evaluation": {"unjudged": True},
        "endpoint": ENDPOINT | endpoint,
        "model": {"family": family, "width": 4},
        **changes,
    }
    plan = StudyPlan.model_validate(value)
    arrays = initial_parameters(plan)
    if "weights" in arrays:
        arrays["weights"] = np.array([0.0, 1.0])
    release = publish(tmp_path, plan, arrays)
    library = Library(tmp_path / "library")
    library.pin(read_trust(release.trust))
    library.add(read_release(release.folder), "demo")


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    path = tmp_path / "patients.csv"
    path.write_text("age,smoking\n63,0\n720,1\n,1\n")
    return path


def rows(path: Path) -> list[list[str]]:
    with path.open() as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("family", "endpoint", "named", "expected"),
    [
        (
            "linear_regression",
            {"kind": "value", "unit": "mmol/L", "center": 5.0, "scale": 2.0},
            "a value in mmol/L",
            [["value [mmol/L]"], ["5"], ["7"], [""]],
        ),
        (
            "poisson_regression",
            {"kind": "count"},
            "an expected count",
            [["count"], ["1"], ["2.71828"], [""]],
        ),
        (
            "discrete_hazard",
            {"kind": "time_to_event", "interval_days": [90, 365]},
            "a probability",
            [
                ["probability", "probability by day 90", "probability by day 365"],
                ["0.75", "0.5", "0.75"],
                ["0.927671", "0.731059", "0.927671"],
                ["", "", ""],
            ],
        ),
    ],
)
def test_the_heading_says_what_the_numbers_are(
    type_in: Type,
    tmp_path: Path,
    patients: Path,
    family: str,
    endpoint: dict[str, Any],
    named: str,
    expected: list[list[str]],
) -> None:
    fetched(tmp_path, family, endpoint)
    patients.write_text(patients.read_text().replace("63,", "756,"))
    out = tmp_path / "out.csv"
    words = ("research", "predict", STUDY, patients, "--out", out, "--unit", "age=months")
    ended = type_in(*words)
    assert ended.status == 0, ended
    assert rows(out) == expected
    assert f"3 patients, {named} of each" in ended.out
    assert "age is missing for 1 of 3 patients" in " ".join(ended.out.split())
    assert named in type_in("research", "show", STUDY).out


def test_records_come_from_a_second_file(
    type_in: Type, refused: Type, tmp_path: Path, patients: Path
) -> None:
    fetched(tmp_path, "recurrent", {"kind": "event"}, sequence={"vocabulary": [GLUCOSE]},
            training={"rounds": 1, "learning_rate": 1})  # fmt: skip
    patients.write_text("age,smoking\n63,0\n70,1\n")
    records, out = tmp_path / "records.csv", tmp_path / "out.csv"
    words = ("research", "predict", STUDY, patients, "--out", out)
    assert "reads whole records: give 'records'" in refused(*words).err
    records.write_text("patient,code,value,unit,days_before\n1,LOINC//2345-7,7.8,mmol/L,3\n")
    ended = type_in(*words, "--records", records)
    assert ended.status == 0, ended
    assert len({line[0] for line in rows(out)[1:]}) == 2
    assert "no record that the model reads: 1 of 2 patients" in ended.out
    records.write_text("patient,code,value,unit,days_before\n2,LOINC//2345-7,7.8,mmol/L,3\n")
    said = refused(*words, "--records", records).err
    assert "records, row 0: expected as patient a row of the columns, 0 to 1, found 2" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "holds no names of columns in its first line"),
        (b"age,smoking\n", "holds no patients"),
        (b"age,age\n1,2\n", "names a column twice: age"),
        (b"age,smoking\n63,0\n63\n", "row 1 (counted from 0 below the names): expected 2 cells"),
        (b"age,smoking\n\xff\xfe,0\n", "is no CSV file in UTF-8"),
        (b'age,smoking\n"63,0\n', "is no CSV file in UTF-8"),
        (b"age,smoker\n63,0\n", "not asked for: smoker"),
        (b"age,smoking\nold,0\n", "column 'age', row 0: expected a number, found 'old'"),
        (b"age,smoking\n63,2\n", "column 'smoking', row 0: expected one of 0, 1, found '2'"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(
    refused: Type, tmp_path: Path, patients: Path, text: bytes, said: str
) -> None:
    fetched(tmp_path, "linear_regression", {"kind": "value"})
    patients.write_bytes(text)
    out = tmp_path / "out.csv"
    assert said in refused("research", "predict", STUDY, patients, "--out", out).err
    assert not out.exists()


def test_a_wrong_option_is_refused_in_a_sentence(
    refused: Type, tmp_path: Path, patients: Path
) -> None:
    fetched(tmp_path, "linear_regression", {"kind": "value"})
    words = ("research", "predict", STUDY, patients, "--out", tmp_path / "out.csv")
    assert "expected --unit COLUMN=UNIT" in refused(*words, "--unit", "age").err
    assert "unknown columns: agee (did you mean age?)" in refused(*words, "--unit", "agee=a").err
    assert (
        "reads columns alone" in refused(*words, "--unit", "age=months", "--records", patients).err
    )
    absent = ("research", "predict", STUDY, tmp_path / "absent.csv", "--out", tmp_path / "out.csv")
    assert "cannot read" in refused(*absent).err
