"""A plan is whole, refuses what contradicts itself, and has one digest."""

from typing import Any

import pytest
from pydantic import ValidationError

from fedtwin_twins.trials.plan import TrialPlan

from .made_up import ARMS, DOSES, TARGET, plain, plan


def test_the_digest_is_that_of_the_meaning() -> None:
    found = plain()
    backwards = dict(reversed(list(found.items())))
    assert TrialPlan.model_validate(found).digest == TrialPlan.model_validate(backwards).digest
    assert plan(seed=8).digest != plan(seed=7).digest


def test_a_setting_is_changed_by_its_path() -> None:
    start = plan("fixed", "level")
    assert (
        start.changed("population.adherence.taken_share", 0.7).population.adherence.taken_share
        == 0.7
    )
    by_name = start.changed("population.covariates.weight.mean", 90.0)
    assert by_name.population.covariates[0].mean == 90.0
    scaled = start.changed("drug.truth.parameter_factors.clearance", 1.25)
    assert scaled.drug.truth.parameter_factors == {"clearance": 1.25}
    arm = start.changed("arms.level.adjust.target.aim", 2.5).arms[1]
    assert arm.adjust is not None
    assert arm.adjust.target.aim == 2.5
    assert start == plan("fixed", "level")


@pytest.mark.parametrize(
    "setting", ["population.height", "population.covariates.height.mean", "seed.x", "arms.fixed.x"]
)
def test_a_setting_that_is_not_there_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"no setting {setting}|{setting} cannot be changed"):
        plan("fixed", "level").changed(setting, 1.0)


def _arm(**changes: Any) -> list[dict[str, Any]]:
    arms = [{"name": name, "label": name, **ARMS[name]} for name in ("fixed", "level")]
    return [arms[0], arms[1] | changes]


def _adjust(**changes: Any) -> list[dict[str, Any]]:
    return _arm(adjust=ARMS["level"]["adjust"] | changes)


def _endpoint(**changes: Any) -> list[dict[str, Any]]:
    return [plain()["endpoints"][0] | changes]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"analysis": {"control": "nobody"}}, "control nobody is no arm: fixed, level"),
        (
            {"drug": plain()["drug"] | {"dosing_model": "made-up-truth"}},
            "the truth is made-up-truth too",
        ),
        ({"endpoints": _endpoint(day=8)}, "endpoint reached: asked after the trial's 7 days"),
        ({"endpoints": _endpoint(low=5)}, "endpoint reached: expected low below high"),
        ({"endpoints": _endpoint(kind="event")}, "expected an event for kind event"),
        ({"endpoints": _endpoint(kind="event", event="x")}, "there is no event x: "),
        (
            {
                "endpoints": [
                    {"name": "kidney", "label": "kidney", "kind": "event", "day": 1}
                    | {"event": "vancomycin_kidney_chavada_2017"}
                ]
            },
            "was seen with vancomycin, expected an event of",
        ),
        (
            {"endpoints": _endpoint(kind="auc24")},
            "dropouts fail only where a window is reached",
        ),
        ({"arms": _arm(name="fixed")}, "arms: every name once, found fixed, fixed"),
        ({"arms": _arm(start={})}, "expected an amount, or a target for the dosing model"),
        ({"arms": _arm(start={"amount": 1, "gene": "CYP3A5"})}, "gene and factors together"),
        ({"arms": _arm(doses=DOSES | {"lowest": 2000})}, "lowest of at most highest"),
        ({"arms": _arm(doses=DOSES | {"infusion_h": 13})}, "longer than the interval"),
        ({"arms": _adjust(days=[4, 2])}, "days in ascending order"),
        ({"arms": _adjust(samples_h=[2])}, "by level needs one trough"),
        ({"arms": _adjust(target=TARGET | {"aim": 5})}, "expected low <= aim <= high"),
        ({"arms": _adjust(largest_change=1)}, "greater than 1"),
        (
            {"analysis": {"control": "fixed", "subgroup_gene": "CYP2C9"}},
            "not among population.genes",
        ),
        ({"patients": 4}, "greater than or equal to 8"),
        ({"twins_instead_of_controls": True}, "Extra inputs are not permitted"),
    ],
)
def test_a_plan_that_does_not_add_up_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        plan("fixed", "level", **change)


def test_what_doses_by_a_model_needs_one() -> None:
    drug = plain()["drug"] | {"dosing_model": None}
    with pytest.raises(ValidationError, match=r"arm model needs drug\.dosing_model"):
        plan("fixed", "model", drug=drug)
    twin = {"control": "fixed", "prognosis": {"by": "twin"}}
    with pytest.raises(ValidationError, match="prognosis by twin needs"):
        plan("fixed", "level", drug=drug, analysis=twin)


def test_every_field_is_explained_or_has_a_name_that_does_it() -> None:
    """No part of a plan lets the control arm go, or puts twins in its place."""
    texts = str(TrialPlan.model_json_schema())
    for word in ("synthetic control", "replace_control", "external_control"):
        assert word not in texts
    assert TrialPlan.model_fields["arms"].metadata, "at least two arms"
    with pytest.raises(ValidationError, match="at least 2 items"):
        plan("fixed")
