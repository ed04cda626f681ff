"""A patient's file: what it may hold, and everything that must be refused, with where and how."""

import re
from collections.abc import Callable
from copy import deepcopy
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedtwin_research.twins.asking import Question, Settings, question_of
from fedtwin_research.twins.reading import read_file, read_text
from fedtwin_twins.pharmacology import library
from fedtwin_twins.twin.refusals import Problem, Refusal

from ..twin_models.pharmacology.cases import case, needs_cases

TODAY = date(2026, 11, 28)
PLAIN: dict[str, Any] = {
    "models": ["vancomycin_goti_2018"],
    "covariates": {"age": "62 a", "body_weight": "80 kg", "creatinine": "1.0 mg/dL"},
    "sex": "female",
    "doses": [{"time": "0 h", "amount": "1000 mg", "duration": "1 h", "interval": "12 h"}],
    "levels": [{"time": "11.5 h", "value": "12.1 mg/L"}],
}
TACROLIMUS: dict[str, Any] = {
    "models": ["tacrolimus_woillard_2011"],
    "covariates": {
        "haematocrit": "31 %",
        "immediate_release": "immediate_release",
        "cyp3a5_expresser": "nonexpresser",
    },
    "doses": [{"time": "0 h", "amount": "4 mg", "interval": "12 h", "steady_state": True}],
}


def ask(content: Any, **settings: Any) -> Question:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    return question_of(read_text(text.encode(), "p.yaml"), Settings(today=TODAY, **settings))


def changed(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The content with one field set; `doses.0.amount` and the like."""
    found = deepcopy(content)
    place: Any = found
    *way, last = path.split(".")
    for name in way:
        place = place[int(name)] if name.isdigit() else place.setdefault(name, {})
    if last == "+":
        place.append(value)
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return found


def problems_of(content: Any, **settings: Any) -> tuple[Problem, ...]:
    with pytest.raises(Refusal) as refused:
        ask(content, **settings)
    return refused.value.problems


def only(content: Any) -> Problem:
    (problem,) = problems_of(content)
    return problem


LEVEL = {"time": "11.5 h", "value": "12.1 mg/L"}
TARGETS = "goal.targets"
TROUGH = {"kind": "trough", "low": "10 mg/L", "high": "20 mg/L"}
GOAL = changed(PLAIN, "goal", {"targets": [TROUGH]})

BAD = [
    # number of the published item, field, value, field of the problem, words of it
    (0, "doses.0.amount", "1000 mgs", "doses[0].amount", "UCUM"),
    (0, "doses.0.amount", "1000", "doses at 0 h.amount", "in a unit that measures the same"),
    (0, "doses.0.amount", "1000 ug", "doses at 0 h.amount", "is it mg?"),
    (0, "doses.0.amount", "1 g/L", "doses at 0 h.amount", "a value in mg"),
    (1, "doses.0.amount", "-5 mg", "doses[0].amount", "above 0"),
    (1, "doses.0.amount", "0 mg", "doses[0].amount", "above 0"),
    (1, "doses.0.duration", "-1 h", "doses[0].duration", "0 or more"),
    (1, "doses.0", {**PLAIN["doses"][0], "interval": "0 h", "additional": 2},
     "doses[0].interval", "above 0"),
    (1, "doses.0", {"time": "0 h", "amount": "1 g", "additional": 2},
     "doses[0].interval", "interval between doses"),
    (2, "doses.0", {**PLAIN["doses"][0], "duration": "13 h", "steady_state": True},
     "doses at 0 h.duration", "at most the interval of 12"),
    (3, "levels.0.time", "-1 h", "levels[0].time", "before the first dose"),
    (3, "levels.0.time", "2026-03-01T20:00", "levels[0].time", "time zone"),
    (3, "levels.0.time", "2026-03-01T20:00+01:00", "levels[0].time", "origin"),
    (3, "levels.+", {**LEVEL, "value": "13 mg/L"}, "levels[1].value", "keep the right one"),
    (4, "levels.0", {"time": "11.5 h"}, "levels[0].value", "a value in mg/L"),
    (4, "levels.0", {"time": "11.5 h", "value": "0.4 mg/L", "limit": "1 mg/L"},
     "levels[0].value", "mark it `below`"),
    (4, "levels.0", {"time": "11.5 h", "below": True}, "levels[0].limit", "limit of the assay"),
    (5, "covariates.creatinine", "88 mg/dL", "covariates.creatinine", "is it umol/L?"),
    (6, "covariates.body_weight", "0 kg", "covariates.body_weight", "0.3 to 500"),
    (6, "covariates.body_weight", "700 kg", "covariates.body_weight", "0.3 to 500"),
    (7, "covariates.age", "4 a", "covariates.age", "must not be used for this patient"),
    (8, "genes", {"CYP2C9": "*1/*XXX"}, "genes.CYP2C9", "alleles of the table"),
    (8, "genes", {"CYP2D6": "*1/*4"}, "genes.CYP2D6.copies", "how many copies"),
    (8, "genes", {"CYP2C19": {"diplotype": "*1/*1", "phenotype": "PM"}},
     "genes.CYP2C19", "Normal Metabolizer"),
    (10, TARGETS, [{"kind": "trough", "low": "20 mg/L", "high": "10 mg/L"}],
     "goal.targets[0].low", "less than the upper limit"),
    (13, "covariates.body_weight", float("nan"), "covariates.body_weight", "finite number"),
    (13, "covariates.age", "nan a", "covariates.age", "a number in a"),
    (13, "levels.0.value", float("inf"), "levels[0].value", "finite number"),
    (13, "doses.0.amount", float("inf"), "doses[0].amount", "finite number"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "path", "value", "field", "words"), BAD)
def test_bad_input_is_refused_with_field_value_allowed_and_remedy(
    item: int, path: str, value: Any, field: str, words: str
) -> None:
    found = only(changed(PLAIN, path, value))
    assert found.field == field
    assert words in str(found)


@needs_cases
def test_every_published_item_is_tried() -> None:
    items = case("E01_bad_input")["inputs"]["items"]
    elsewhere = {9, 11, 12}  # below: a fraction, a card's covariances; no card lacks a steady state
    assert {number for number, *_ in BAD} | elsewhere == set(range(len(items)))


def test_a_fraction_is_no_percentage() -> None:
    found = only(changed(TACROLIMUS, "covariates.haematocrit", "0.31 %"))
    assert (found.field, "a fraction" in found.remedy) == ("covariates.haematocrit", True)
    fraction = ask(changed(TACROLIMUS, "covariates.haematocrit", 0.31))
    assert str(fraction.patient.covariates["haematocrit"]) == "0.31 1"


def test_a_height_in_metres_is_no_height_in_centimetres() -> None:
    obese = changed(PLAIN, "models", ["vancomycin_adane_2015"])
    found = only(changed(obese, "covariates.height", "1.75 cm"))
    assert (found.field, found.remedy) == ("covariates.height", "is it m?")


def test_what_is_soft_is_a_caution() -> None:
    question = ask(changed(PLAIN, "covariates.body_weight", "260 kg"))
    (caution,) = [
        one for one in _cautions(question) if one.field == "body_weight" and one.value == "260"
    ]
    assert "trust it less" in caution.remedy


def _cautions(question: Question) -> list[Problem]:
    from fedtwin_twins.twin.tabulate import tabulate

    tables = tabulate([question.patient], question.models[0].intake)
    return [*question.cautions, *tables.cautions[0]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one["between_patients"]["blocks"][0].update(
            parameters=["clearance", "central_volume"], diagonal=[0.4, 0.8],
            correlations=[[1.5]]), "correlation"),
        (lambda one: one["between_patients"]["blocks"][0].update(diagonal=[-0.1]), "greater"),
        (lambda one: one["between_patients"]["blocks"][0].update(diagonal=[40.0]), "39.8"),
    ],
)  # fmt: skip
def test_a_card_with_impossible_variability_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], words: str
) -> None:
    shipped = files(library.__package__) / "cards" / "vancomycin_goti_2018.yaml"
    card = yaml.safe_load(shipped.read_text())
    change(card)
    (tmp_path / "vancomycin_goti_2018.yaml").write_text(yaml.safe_dump(card))
    found = problems_of(PLAIN, cards=tmp_path)
    assert all("vancomycin_goti_2018" in one.field for one in found)
    assert found


def test_all_that_is_wrong_is_said_at_once() -> None:
    """Faults of form, of units, of the record, of genes and of wishes, in one refusal."""
    wrong = {
        "drug": "vancomycin",
        "origin": "2026-03-01T08:00+01:00",
        "covariate": {},
        "covariates": {"age": "62 years", "body_weight": "700 kg", "bodyheight": "170 cm"},
        "genes": {"CYP2D6": "*1/*4"},
        "other_drugs": ["amiodarome"],
        "doses": [
            {"time": "0 h", "amount": "1 gramm"},
            {"time": "12 h", "amount": "1 g", "durations": "1 h"},
            {"time": "24 h", "amount": "-1 g"},
            {"time": "36 h", "amount": "1 g"},
        ],
        "levels": [{"time": "2026-03-03T20:00", "value": "12 mg/L"}, {"time": "40 h"}],
        "goal": {"targets": [{"kind": "troughs", "low": "3 mg/L"}]},
        "limits": {"largest_dose": "9 g"},
    }
    fields = {one.field for one in problems_of(wrong)}
    assert fields >= {
        *("covariate", "covariates.age", "covariates.body_weight", "covariates.bodyheight"),
        *("genes.CYP2D6.copies", "other_drugs[0]", "doses[0].amount", "doses[1].durations"),
        *("doses[2].amount", "levels[0].time", "levels[1].value", "goal.targets[0].kind"),
        "limits.largest_dose",
    }


@pytest.mark.parametrize(
    ("path", "value", "near"),
    [
        ("covariate", {}, "covariates"),
        ("doses.0.durations", "1 h", "duration"),
        ("levels.0.lloq", "1 mg/L", None),
        ("covariates.bodyweight", "80 kg", "body_weight"),
        ("limits.largest_doses", "1 g", "largest_dose"),
        ("goal.target", [], "targets"),
        ("candidates.dose", ["1 g"], "doses"),
        ("what_if", [{"nam": "x"}], "name"),
        ("models", ["vancomycin_gothi_2018"], "vancomycin_goti_2018"),
        ("drug", "vancomicin", "leave out"),
        ("baseline_risks.vancomycin_kidney", 0.1, "vancomycin_kidney_"),
    ],
)
def test_an_unknown_name_meets_the_nearest_one(path: str, value: Any, near: str | None) -> None:
    found = problems_of(changed(PLAIN, path, value))
    assert near is None or any(near in one.remedy for one in found), found


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("largest_dose", "3500 mg", "at most 3000 mg"),
        ("largest_daily_dose", "6 g", "at most 4500 mg"),
        ("smallest_interval", "30 min", "at least 1 h"),
        ("largest_change", 0.8, "0 to 0.5"),
        ("largest_change", -0.1, "0 to 0.5"),
    ],
)
def test_limits_are_made_stricter_only(field: str, value: Any, allowed: str) -> None:
    found = only(changed(GOAL, f"limits.{field}", value))
    assert found.field == f"limits.{field}"
    assert allowed in found.allowed
    assert "not looser" in found.remedy


def test_stricter_limits_hold() -> None:
    question = ask(changed(GOAL, "limits", {"largest_dose": "1.5 g", "largest_change": 0.2}))
    assert question.wanted is not None
    limits = question.wanted.limits
    assert (str(limits.largest_dose), limits.largest_change) == ("1500 mg", 0.2)
    assert str(limits.largest_daily) == "4500 mg"


def test_the_cards_of_a_drug_that_do_not_fit_are_set_aside_and_said() -> None:
    content = {**PLAIN, "drug": "vancomycin", "models": []}
    question = ask(content)
    names = [model.name for model in question.models]
    assert "vancomycin_goti_2018" in names
    aside = {one.field for one in question.cautions if one.value == "set aside"}
    assert "vancomycin_adane_2015" in aside  # needs a height
    assert not aside & set(names)
    assert len(names) + len(aside) == 6


def test_a_mistake_does_not_set_a_card_aside() -> None:
    content = {**PLAIN, "drug": "vancomycin", "models": []}
    found = problems_of(changed(content, "covariates.creatinine", "88 mg/dL"))
    assert [one.field for one in found] == ["covariates.creatinine"]


def test_genes_and_other_drugs_become_covariates_beside_the_recommendation() -> None:
    content = deepcopy(TACROLIMUS)
    del content["covariates"]["cyp3a5_expresser"]
    question = ask({**content, "genes": {"CYP3A5": "*1/*3"}, "other_drugs": ["fluconazole"]})
    assert str(question.patient.covariates["cyp3a5_expresser"]) == "1 1"
    assert question.beside.recommendations[0].starting_dose_factor == (1.5, 2.0)
    said = [str(one) for one in question.cautions]
    assert any("fluconazole with tacrolimus is not in the model" in one for one in said)
    assert any("fluconazole" in one and "read in the source" in one for one in said)
    clash = problems_of(changed(TACROLIMUS, "genes", {"CYP3A5": "*1/*3"}) | {
        "covariates": {**content["covariates"], "cyp3a5_expresser": 0}
    })  # fmt: skip
    assert [one.field for one in clash] == ["covariates.cyp3a5_expresser"]
    missing = problems_of(content)
    assert [one.field for one in missing] == ["covariates.cyp3a5_expresser"]


def test_an_interaction_that_a_model_knows_is_in_its_numbers() -> None:
    warfarin = {
        "models": ["warfarin_xia_2024"],
        "covariates": {"body_weight": "60 kg", "age": "60 a"},
        "genes": {"CYP2C9": "*1/*1", "VKORC1": "A/A"},
        "other_drugs": ["amiodarone"],
        "doses": [{"time": "0 h", "amount": "2.5 mg"}],
    }
    question = ask(warfarin)
    assert str(question.patient.covariates["amiodarone"]) == "1 1"
    assert not any("not in the model" in str(one) for one in question.cautions)
    assert any("flow chart" in str(one) for one in question.cautions)
    guided = ask({**warfarin, "warfarin": {"african_ancestry": False}})
    assert guided.beside.guidance


def test_a_contraindicated_gene_forbids_the_drug() -> None:
    content = {
        "models": ["fluorouracil_arshad_2020"],
        "covariates": {"body_weight": "70 kg", "height": "170 cm", "cisplatin": "without"},
        "sex": "female",
        "genes": {"DPYD": 0},
        "doses": [{"time": "0 h", "amount": "1000 mg", "duration": "24 h"}],
    }
    question = ask(content)
    assert question.beside.forbidden
    assert "avoid" in question.beside.forbidden[0].value


def test_times_may_be_datetimes_with_their_zone() -> None:
    content = changed(PLAIN, "origin", "2026-03-01T08:00+01:00")
    content["doses"][0]["time"] = "2026-03-01T08:00+01:00"
    content["levels"][0]["time"] = "2026-03-01T18:30Z"
    question = ask(content)
    assert question.hours.grid[0] == 0.0
    assert 11.5 in question.hours.grid
    naive = changed(content, "origin", "2026-03-01T08:00")
    assert "time zone" in str(only(naive))
    assert "a datetime" in str(only(changed(content, "origin", "3 h")))


def test_what_has_no_meaning_without_a_goal_is_said() -> None:
    question = ask(changed(PLAIN, "limits", {"largest_dose": "1 g"}))
    assert any(one.field == "limits" and one.value == "not used" for one in question.cautions)
    assert ask(changed(PLAIN, "limits", {"largest_dose": "1 g"}), advise=True).wanted is not None


def test_several_ranges_of_a_card_must_be_chosen_from() -> None:
    content = changed(TACROLIMUS, "goal", {})
    found = only(content)
    assert found.field == "goal.targets"
    assert "low: 10 ng/mL" in found.remedy


def test_a_start_before_the_last_dose_is_refused() -> None:
    content = changed(GOAL, "doses.0.additional", 3)
    found = only(changed(content, "start", "24 h"))
    assert (found.field, found.allowed) == ("start", "after the last dose at 36 h")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "fields such as drug"),
        ("- 1", "fields such as drug"),
        ("{", "not YAML"),
        ("drug: a\ndrug: b", "given twice"),
        ("doses: [{amount: 4 [IU]}]", "in quotes"),
        ("drug: 3", "drug"),
        ("doses: 3", "doses"),
        ("doses: [3]", "doses[0]"),
        ("covariates: [3]", "covariates"),
        ("{}", "name a drug"),
    ],
)
def test_what_is_no_patient_is_refused(text: str, words: str) -> None:
    assert words in "\n".join(map(str, problems_of(text)))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"nobody\.yaml"):
        read_file(tmp_path / "nobody.yaml")


@pytest.mark.parametrize(
    "name", [one.name for one in (files("fedtwin_research") / "twins" / "examples").iterdir()]
)
def test_every_example_is_a_question(name: str) -> None:
    text = (files("fedtwin_research") / "twins" / "examples" / name).read_text()
    assert ask(text).models
    assert re.search(r"^# Ask it: fedtwin research twin ", text, re.MULTILINE)


def test_a_what_if_for_a_patient_whom_no_card_fits_is_refused_with_the_reason() -> None:
    content = deepcopy(PLAIN)
    del content["covariates"]["creatinine"]
    dose = {"time": "48 h", "amount": "750 mg", "duration": "1 h"}
    content["what_if"] = [{"name": "less", "doses": [dose]}]
    assert "creatinine" in " ".join(map(str, problems_of(content)))
