"""A card loads only if everything is there and fits: one broken field at a time."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.library import library, load_card, read_card, shipped
from fedtwin_twins.pharmacology.reading_cards import card_from
from fedtwin_twins.twin.refusals import Problem, Refusal

pytestmark = pytest.mark.case("E01")

CARDS = Path(__file__).parents[3] / "twin_models/fedtwin_twins/pharmacology/cards"


def plain(name: str = "vancomycin_thomson_2009") -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CARDS / f"{name}.yaml").read_text())
    return copy.deepcopy(content)


def problems(content: object) -> list[Problem]:
    with pytest.raises(Refusal) as caught:
        card_from(content, "card")
    return list(caught.value.problems)


def parameter(content: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in content["parameters"] if one["name"] == name)
    return found


def test_every_shipped_card_loads_and_says_where_its_numbers_come_from() -> None:
    assert len(shipped()) >= 16
    for card in shipped().values():
        assert card.references
        assert card.transcribed_in
        assert card.routes[0].doses_source


@pytest.mark.parametrize("field", list(ModelCard.model_fields))
def test_every_field_must_be_there(field: str) -> None:
    content = plain()
    del content[field]
    assert [problem.field for problem in problems(content)] == [f"card: {field}"]


def test_an_unknown_field_is_a_mistake() -> None:
    content = plain()
    content["omega"] = 1
    content["routes"][0]["lagg"] = "x"
    assert {problem.field for problem in problems(content)} == {
        "card: omega",
        "card: routes.0.lagg",
    }


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        *before, last = path.split(".")
        place: Any = content
        for part in before:
            place = place[int(part)] if part.isdigit() else place[part]
        if last.isdigit():
            place[int(last)] = value
        else:
            place[last] = value

    return apply


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "format": (change("format", "fedtwin-model-card/2"), "format"),
    "id": (change("id", "Vancomycin Thomson"), "id"),
    "version": (change("version", "one"), "version"),
    "ATC code": (change("drug.atc", "J01"), "drug.atc"),
    "text for a number": (change("parameters.0.typical", "2.99"), "parameters.0.typical"),
    "NaN": (change("parameters.0.typical", math.nan), "parameters.0.typical"),
    "infinite": (change("covariates.0.hard", [0.0, math.inf]), "covariates.0.hard.1"),
    "disposition": (change("disposition", "four_compartments"), "disposition"),
    "effect": (change("effect", "magic"), "effect"),
    "unit unknown": (change("parameters.0.unit", "L/hour"), "parameters.0.unit"),
    "unit of another kind": (change("parameters.0.unit", "L"), "parameters.clearance.unit"),
    "unit of a dose": (change("routes.0.unit", "mL"), "observables.concentration.unit"),
    "input": (change("routes.0.input", "osmosis"), "routes.0.input"),
    "rate missing": (change("routes.0.input", "first_order"), "routes.intravenous.rate"),
    "compartments": (change("routes.0.compartments", 3), "routes.intravenous.compartments"),
    "lag without a parameter": (change("routes.0.lag", "delay"), "routes.intravenous.lag"),
    "dose range": (
        change("routes.0.believable_single_dose", [100.0, 10.0]),
        "routes.intravenous.believable_single_dose",
    ),
    "largest doses": (
        change("routes.0.largest_single_dose", 9_999.0),
        "routes.intravenous.largest_single_dose",
    ),
    "dose scale": (change("routes.0.dose_scale", 0.0), "routes.0.dose_scale"),
    "ranges": (change("covariates.0.soft", [1.0, 200.0]), "covariates.age"),
    "default": (change("covariates.0.default", 500.0), "covariates.age.default"),
    "derived equation": (change("derived.0.equation", "mdrd"), "derived.creatinine_clearance"),
    "derived input": (
        change("derived.0.inputs.age", "years"),
        "derived.creatinine_clearance.inputs.age",
    ),
    "derived coefficients": (
        change("derived.0.coefficients", {}),
        "derived.creatinine_clearance.coefficients",
    ),
    "derived unit": (change("derived.0.unit", "mL"), "derived.creatinine_clearance.unit"),
    "relation": (
        change("parameters.0.relations.0.equation", "cubic"),
        "parameters.0.relations.0.equation",
    ),
    "relation's covariate": (
        change("parameters.0.relations.0.covariate", "moon"),
        "parameters.clearance.relations[0].covariate",
    ),
    "relation's coefficients": (
        change("parameters.0.relations.0.coefficients", {"slope": 1.0}),
        "parameters.clearance.relations[0].coefficients",
    ),
    "neither typical nor sum": (
        change("parameters.0.typical", None),
        "parameters.clearance.typical",
    ),
    "sum of nothing known": (
        change("parameters.0.sum_of", ["renal"]),
        "parameters.clearance.typical",
    ),
    "convention": (change("between_patients.convention", "cv"), "between_patients.convention"),
    "effect on nothing": (
        change("between_patients.blocks.1.parameters", ["speed"]),
        "between_patients.blocks",
    ),
    "effect twice": (
        change("between_patients.blocks.1.parameters", ["clearance"]),
        "between_patients.blocks",
    ),
    "percentage for a fraction": (
        change("between_patients.blocks.1.diagonal", [39.8]),
        "between_patients.blocks[1].diagonal",
    ),
    "not above 0": (
        change("between_patients.blocks.1.diagonal", [0.0]),
        "between_patients.blocks.1.diagonal.0",
    ),
    "correlation beyond 1": (
        change("between_patients.blocks.0.covariances", [[0.05]]),
        "between_patients.blocks[0]",
    ),
    "rows of a block": (
        change("between_patients.blocks.0.covariances", [[0.01, 0.01]]),
        "between_patients.blocks[0].covariances",
    ),
    "covariances of deviations": (
        change("between_patients.convention", "sd"),
        "between_patients.blocks[0].covariances",
    ),
    "residual convention": (
        change("observables.0.residual.convention", "combined"),
        "observables.0.residual.convention",
    ),
    "no error": (
        change(
            "observables.0.residual",
            {
                "convention": "additive",
                "source": {"reference": "thomson_2009", "place": "nowhere"},
            },
        ),
        "observables.concentration.residual",
    ),
    "output": (change("observables.0.output", "inr"), "observables.concentration.output"),
    "observable's unit": (change("observables.0.unit", "mg"), "observables.concentration.unit"),
    "target reversed": (change("targets.0.low", 700.0), "targets[0]"),
    "target's observable": (change("targets.0.observable", "level"), "targets[0].observable"),
    "target's unit": (change("targets.0.unit", "mg/L"), "targets[0].unit"),
    "reference": (
        change("parameters.0.source.reference", "nobody_1999"),
        "parameters.clearance.source.reference",
    ),
    "covariate rule": (change("covariate_rule", "locf"), "covariate_rule"),
    "record order": (change("record_order", "any"), "record_order"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_field_is_named(name: str) -> None:
    content = plain()
    apply, field = BROKEN[name]
    apply(content)
    found = problems(content)
    assert any(problem.field.startswith(f"card: {field}") for problem in found), [
        str(problem) for problem in found
    ]


def test_three_effects_that_fit_in_pairs_may_still_be_impossible() -> None:
    content = plain("vancomycin_hughes_2024")
    block = content["between_patients"]["blocks"][0]
    block.update(diagonal=[1.0, 1.0, 1.0], covariances=[[0.9], [0.9, -0.9]])
    assert "positive definite" in problems(content)[0].allowed


def test_a_missing_parameter_of_the_structure() -> None:
    content = plain()
    content["parameters"] = [one for one in content["parameters"] if one["name"] != "clearance"]
    assert "card: parameters.clearance" in {problem.field for problem in problems(content)}


@pytest.mark.parametrize("content", [None, [], "card", 5, {1: 2}])
def test_what_is_no_card_at_all(content: object) -> None:
    assert problems(content)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for name, text in (
        ("twice.yaml", "id: a\nid: b\n"),
        ("broken.yaml", "id: [a\n"),
        ("binary.yaml", "\x00\x01"),
    ):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(Refusal, match="unreadable"):
            read_card(path)
    with pytest.raises(Refusal, match="unreadable"):
        read_card(tmp_path / "nowhere.yaml")


def test_a_site_has_cards_of_its_own(tmp_path: Path) -> None:
    content = plain()
    parameter(content, "clearance")["typical"] = 3.1
    (tmp_path / "vancomycin_thomson_2009.yaml").write_text(yaml.safe_dump(content))
    content["id"] = "vancomycin_here_2026"
    (tmp_path / "vancomycin_here_2026.yaml").write_text(yaml.safe_dump(content))
    entries = library(tmp_path)
    ours = entries["vancomycin_thomson_2009"]
    original = load_card("vancomycin_thomson_2009")
    assert ours.replaces == original.digest
    assert ours.card.digest != original.digest
    assert entries["vancomycin_here_2026"].origin.endswith("vancomycin_here_2026.yaml")
    assert entries["warfarin_hamberg_2010"].origin == "shipped"


def test_a_site_hears_of_all_broken_cards_at_once(tmp_path: Path) -> None:
    content = plain()
    content["version"] = "x"
    (tmp_path / "vancomycin_thomson_2009.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(plain()))
    with pytest.raises(Refusal) as caught:
        library(tmp_path)
    assert {problem.field for problem in caught.value.problems} == {
        "vancomycin_thomson_2009.yaml: version",
        "other.yaml: id",
    }
    with pytest.raises(Refusal, match="folder"):
        library(tmp_path / "nowhere")


def test_an_unknown_card_names_the_known_ones() -> None:
    with pytest.raises(Refusal, match="tacrolimus_woillard_2011"):
        load_card("tacrolimus")


def test_a_hash_looks_at_content_and_not_at_layout(tmp_path: Path) -> None:
    path = tmp_path / "vancomycin_thomson_2009.yaml"
    path.write_text("# a remark\n" + yaml.safe_dump(plain(), sort_keys=True))
    assert read_card(path).digest == load_card("vancomycin_thomson_2009").digest


def test_a_case_that_a_card_claims_to_meet_exists() -> None:
    cases = Path(__file__).parents[4] / "shared" / "cases" / "pharmacology"
    if not cases.is_dir():
        pytest.skip("the shared cases are not here")
    claimed = {name for card in shipped().values() for name in card.verified_by}
    assert claimed
    assert [name for name in claimed if not (cases / f"{name}.json").is_file()] == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id: a\nid: b\n", "the key 'id' is given twice"),
        ("id: 2026-02-30\n", "day is out of range"),
        (f"id: {'9' * 5000}\n", "integer string conversion"),
        ("id: &a [*a]\n", "write out what they stand for"),
        (
            "a0: &a0 [x, x]\n"
            + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
            "write out what they stand for",
        ),
    ],
)
def test_yaml_that_is_lost_or_never_ends(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(Refusal, match=sentence):
        read_card(path)


def test_what_came_later_is_checked_and_changes_no_hash_where_it_is_not_stated() -> None:
    card = card_from(plain(), "card")
    assert "within" not in card.model_dump()["targets"][0]
    assert "believable" not in card.model_dump()["observables"][0]
    glucose = plain("glucose_hovorka_2004")
    glucose["observables"][0]["believable"] = [60.0, 0.5]
    glucose["targets"][0]["within"] = None
    glucose["targets"][1]["unit"] = "mmol/L"
    assert {one.field for one in problems(glucose)} == {
        "card: observables.glucose.believable",
        "card: targets[0].within",
        "card: targets[1].unit",
    }
