"""`fedtwin research twin`: an example as it is, files for machines and people, and refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SMALL = {
    "name": "P-1",
    "models": ["vancomycin_goti_2018"],
    "covariates": {"age": "62 a", "body_weight": "80 kg", "creatinine": "1.0 mg/dL"},
    "sex": "female",
    "doses": [{"time": "0 h", "amount": "1 g", "duration": "1 h", "interval": "12 h"}],
    "levels": [{"time": "11.5 h", "value": "9 mg/L"}],
    "candidates": {"doses": ["1 g"], "intervals": ["12 h"]},
    "forecast_until": "24 h",
}


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    path = tmp_path / "patient.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def test_an_example_works_as_it_is(tmp_path: Path, type_in: Callable[..., Any]) -> None:
    said = type_in("research", "twin", "--example")
    assert said.status == 0
    assert said.out.startswith("# A patient on vancomycin")
    path = tmp_path / "patient.yaml"
    path.write_text(said.out)
    report, answer = tmp_path / "p.html", tmp_path / "p.json"
    said = type_in("research", "twin", path, "--report", report, "--json", answer)
    assert said.status == 0, said.err
    for words in ("believed", "Proposed: ", "risk %", "acute kidney injury", "Cautions:", "signed"):
        assert words in said.out.replace("to sign", "signed"), words
    assert json.loads(answer.read_text())["proposal"]["signed"] is False
    assert report.read_text().startswith("<!doctype html>")


def test_json_alone_on_standard_output(patient: Path, type_in: Callable[..., Any]) -> None:
    said = type_in("research", "twin", patient, "--json", "-", "--today", "2026-03-01")
    found = json.loads(said.out)
    assert found["hangs_on"]["Guidelines as of"] == "2026-03-01"
    assert found["proposal"] is None
    assert found["refusal"] == []


def test_advice_out_of_reach_ends_with_the_reason(patient: Path, refused: Any) -> None:
    content = {**SMALL, "goal": {"targets": [{"kind": "trough", "low": "300 mg/L"}]}}
    patient.write_text(yaml.safe_dump(content))
    report = patient.with_suffix(".html")
    said = refused("research", "twin", patient, "--report", report)
    assert "no regimen is proposed" in said.err
    assert "probability of meeting the goal" in said.err
    assert "Nothing is proposed" in report.read_text()


def test_a_file_is_refused_with_all_that_is_wrong(patient: Path, refused: Any) -> None:
    wrong = {**SMALL, "covariates": {"age": "62 years", "creatinine": "88 mg/dL"}, "doze": []}
    patient.write_text(yaml.safe_dump(wrong))
    said = refused("research", "twin", patient)
    for words in ("4 things", "62 a?", "is it umol/L?", "body_weight is missing", "mean doses?"):
        assert words in said.err, said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--example vancomycin"),
        (["nobody.yaml"], "nobody.yaml"),
        (["aspirin", "--example"], "vancomycin"),
        (["PATIENT", "--today", "soon"], "2026-03-01"),
        (["PATIENT", "--models", "goti"], "see 'fedtwin research models'"),
        (["PATIENT", "--cards", "nowhere"], "a folder"),
    ],
)
def test_wrong_words(patient: Path, refused: Any, words: list[str], says: str) -> None:
    typed = [patient if word == "PATIENT" else word for word in words]
    assert says in refused("research", "twin", *typed).err
