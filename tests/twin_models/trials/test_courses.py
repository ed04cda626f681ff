"""What happens in an arm, counted by hand on a model in closed form."""

from typing import Any

import numpy as np
import pytest
import torch

from fedtwin_twins.trials.arms import Arm
from fedtwin_twins.trials.conduct import Conduct
from fedtwin_twins.trials.course import Course, Group
from fedtwin_twins.trials.dosing import in_proportion, rounded
from fedtwin_twins.trials.endpoints import Endpoint, outcomes
from fedtwin_twins.trials.plan import TrialPlan
from fedtwin_twins.trials.population import draw_population
from fedtwin_twins.trials.replicate import Replicate, Work, learn_history
from fedtwin_twins.trials.streams import Streams
from fedtwin_twins.twin.refusals import Refusal

from .made_up import ARMS, DOSES, LABORATORY, TARGET, WEIGHT, plain, plan
from .one_compartment import OneCompartment


def ran(found: TrialPlan, arm: int = 0) -> tuple[Course, Group]:
    """An arm over all patients of the first replicate."""
    run = Conduct(found, LABORATORY)
    streams = Streams(seed=found.seed, replicates=(0,), first=0, count=found.patients)
    patients = draw_population(found.population, streams)
    truth = run.truth_of(patients, streams, run.truth)
    leaves = found.population.dropout.days(patients.covariates, streams)
    group = run.group(patients, np.arange(found.patients), streams, truth, leaves)
    return run.course(arm, group), group


def population(**changes: Any) -> dict[str, Any]:
    return {"population": plain()["population"] | changes}


def test_a_fixed_arm_gives_each_kilogram_its_amount() -> None:
    course, group = ran(plan("fixed", "gene"))
    weight = group.patients.covariates["weight"]
    expected = np.clip(np.round(4 * weight / 10) * 10, 10, 1000)
    assert course.times_h.tolist() == list(range(0, 168, 12))
    assert (course.prescribed == expected[:, None]).all()
    assert course.levels.shape == (120, 0)


def test_a_gene_guided_arm_doubles_for_expressers_only() -> None:
    fixed, group = ran(plan("fixed", "gene"), 0)
    guided, _ = ran(plan("fixed", "gene"), 1)
    expresser = group.patients.covariates["expresser"] == 1
    factor = guided.prescribed[:, 0] / fixed.prescribed[:, 0]
    assert factor[~expresser] == pytest.approx(1.0)
    assert factor[expresser] == pytest.approx(2.0, rel=0.05)


def test_a_loading_dose_is_the_first_alone() -> None:
    arms = [
        {
            "name": name,
            "label": name,
            **ARMS["fixed"],
            "start": {"amount": 100, "loading_factor": 2},
        }
        for name in ("one", "two")
    ]
    course, _ = ran(plan(arms=arms, analysis={"control": "one"}))
    assert (course.prescribed[:, 0] == 200).all()
    assert (course.prescribed[:, 1:] == 100).all()


def test_levels_are_the_truth_with_the_models_error() -> None:
    course, group = ran(plan("fixed", "level", patients=4000), 1)
    times = torch.as_tensor(course.level_hours).repeat(4000, 1)
    true = group.truth.model.predict(course.batch, group.truth.effects, times).numpy()
    ratio = course.levels / true
    assert course.level_hours.tolist() == [48.0, 96.0]
    assert ratio.mean(axis=0) == pytest.approx(1.0, abs=0.01)
    assert ratio.std(axis=0) == pytest.approx(0.1, rel=0.05)
    assert np.corrcoef(ratio.T)[0, 1] == pytest.approx(0.0, abs=0.05)


def test_a_level_guided_dose_follows_the_rule_of_three_after_the_level() -> None:
    course, _ = ran(plan("fixed", "level"), 1)
    first, second, level = course.prescribed[:, 0], course.prescribed[:, 4], course.levels[:, 0]
    assert (course.prescribed[:, :4] == first[:, None]).all()
    inside = (level >= 2) & (level <= 4)
    assert inside.any()
    assert not inside.all()
    assert (second[inside] == first[inside]).all()
    wanted = first * np.clip(3 / level, 0.5, 2.0)
    assert np.abs(second - wanted)[~inside] == pytest.approx(0, abs=5.0)


def test_the_rule_of_three_is_bounded_and_leaves_who_was_not_measured() -> None:
    arm = Arm.model_validate({"name": "level", "label": "level", **ARMS["level"]})
    assert arm.adjust is not None
    last, level = np.full(5, 100.0), np.array([1e-6, 0.0, 3.0, 60.0, np.nan])
    found = in_proportion(last, level, arm.adjust, arm.doses)
    assert found.tolist() == [200.0, 200.0, 100.0, 50.0, 100.0]


def test_amounts_are_those_that_there_are() -> None:
    allowed = Arm.model_validate({"name": "a", "label": "a", **ARMS["fixed"]}).doses
    assert rounded(np.array([1.0, 14.9, 15.1, 5000.0]), allowed).tolist() == [10, 10, 20, 1000]


def test_missed_doses_are_not_in_the_body_and_nobody_knows() -> None:
    missing = {"taken_share": 0.5, "source": "made up"}
    full, group = ran(plan("fixed", "gene"))
    half, _ = ran(plan("fixed", "gene", **population(adherence=missing)))
    assert (half.prescribed == full.prescribed).all()
    taken = half.batch.doses.amount.numpy() / half.prescribed
    assert set(np.unique(taken)) == {0.0, 1.0}
    assert taken.mean() == pytest.approx(0.5, abs=0.05)
    area = Endpoint(name="a", label="a", kind="auc24", day=7, unit="mg.h/L")
    assert outcomes(area, half, group, {}).mean() < 0.7 * outcomes(area, full, group, {}).mean()


def test_who_leaves_has_no_more_doses_levels_or_outcome() -> None:
    leaving = {"share": 0.6, "by_day": 7.0, "source": "made up"}
    course, group = ran(plan("fixed", "level", patients=400, **population(dropout=leaving)), 1)
    gone = group.leaves_day < 7
    assert gone.mean() == pytest.approx(0.6, abs=0.08)
    late = course.times_h[None, :] >= 24 * group.leaves_day[:, None]
    assert (course.batch.doses.amount.numpy()[late] == 0).all()
    absent = course.level_hours[None, :] >= 24 * group.leaves_day[:, None]
    assert (np.isnan(course.levels) == absent).all()
    for dropouts, expected in (("left_out", np.nan), ("failure", 0.0)):
        window = Endpoint(
            **{"name": "w", "label": "w", "kind": "trough_in_window", "day": 7},
            low=0.001, high=900, dropouts=dropouts,
        )  # fmt: skip
        found = outcomes(window, course, group, {})
        assert np.array_equal(found[gone], np.full(gone.sum(), expected), equal_nan=True)
        assert (found[~gone] == 1).all()


def test_time_in_window_counts_hours() -> None:
    course, group = ran(plan("fixed", "gene"))
    window = Endpoint(
        name="t", label="t", kind="time_in_window", day=7, from_day=5, low=2, high=6, step_h=0.5
    )
    found = outcomes(window, course, group, {})
    hours = torch.arange(120.0, 168.01, 0.5, dtype=torch.float64).repeat(120, 1)
    levels = group.truth.model.predict(course.batch, group.truth.effects, hours)
    assert found == pytest.approx(((levels >= 2) & (levels <= 6)).double().mean(dim=1).numpy())


def test_the_area_over_a_day_is_dose_over_clearance_at_steady_state() -> None:
    course, group = ran(plan("fixed", "gene", days=60))
    area = Endpoint(name="a", label="a", kind="auc24", day=60, unit="mg.h/L")
    clearance = group.truth.model.individual(course.batch, group.truth.effects)["clearance"]
    expected = 2 * course.prescribed[:, 0] / clearance[:, 0].numpy()
    assert outcomes(area, course, group, {}) == pytest.approx(expected, rel=1e-3)


def test_a_dosing_model_that_learns_from_levels_gets_nearer_than_one_that_does_not() -> None:
    """Troughs on day 7, distance from the aim as a ratio."""

    def distance(days: list[float]) -> float:
        adjust = {"by": "model", "days": days, "target": TARGET, "largest_change": 5.0}
        arm = {"name": "x", "label": "x", "doses": DOSES, "start": {"target": TARGET}}
        fixed = {"name": "fixed", "label": "fixed", **ARMS["fixed"]}
        arms = [fixed, arm | {"adjust": adjust}]
        found = plan(arms=arms, analysis={"control": "fixed"}, patients=60)
        course, group = ran(found, 1)
        trough = Endpoint(name="t", label="t", kind="trough", day=7, unit="mg/L")
        return float(np.median(np.abs(np.log(outcomes(trough, course, group, {}) / 3))))

    assert distance([3]) < 0.7 * distance([6.9])


def test_a_condition_and_a_what_if_act_on_the_truth_alone() -> None:
    ill = {
        **{"name": "ill", "prevalence": 0.5, "source": "made up"},
        "parameter_factors": {"clearance": 0.5},
    }
    drug = plain()["drug"]
    changed = drug | {"truth": drug["truth"] | {"parameter_factors": {"clearance": 2.0}}}
    before, group = ran(plan("fixed", "level"), 1)
    after, other = ran(plan("fixed", "level", drug=changed, **population(conditions=[ill])), 1)
    has = other.patients.conditions["ill"]
    old = group.truth.model.individual(before.batch, group.truth.effects)["clearance"][:, 0]
    new = other.truth.model.individual(after.batch, other.truth.effects)["clearance"][:, 0]
    assert (new / old).numpy() == pytest.approx(np.where(has, 1.0, 2.0))
    assert (before.prescribed[:, 0] == after.prescribed[:, 0]).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (population(gene_covariates=[]), None),
        (
            population(covariates=[WEIGHT | {"name": "mass"}]),
            "covariate weight is missing; add it to the plan's population, in kg",
        ),
        (
            population(covariates=[WEIGHT | {"unit": "g"}]),
            "weight is in g; expected kg as its unit",
        ),
        (
            population(covariates=[WEIGHT | {"lowest": 1, "mean": 25}]),
            r"outside of the model's range in \d+ of 120 virtual patients; expected 20 to 250 kg",
        ),
        ({"drug": plain()["drug"] | {"route": "nasal"}}, "route is nasal; expected oral"),
        (
            {
                "drug": plain()["drug"]
                | {"truth": {"model": "made-up-truth", "parameter_factors": {"speed": 2}}}
            },
            "factor on is speed; expected clearance or volume",
        ),
    ],
)
def test_a_population_that_the_models_cannot_take_is_refused(
    change: dict[str, Any], sentence: str | None
) -> None:
    found = plan("fixed", "gene", **change)
    if sentence is None:
        ran(found)
        return
    with pytest.raises(Refusal, match=sentence):
        ran(found)


def replicate(number: int, found: TrialPlan) -> Replicate:
    history = learn_history(found, LABORATORY)
    return Work(plan=found, laboratory=LABORATORY, history=history)((number,))[0]


@pytest.mark.parametrize("by", ["history", "twin"])
def test_a_replicate_is_whole_and_repeats_itself(by: str) -> None:
    prognosis = {"by": by, "patients": 400, "draws": 5}
    analysis = {"control": "fixed", "prognosis": prognosis, "subgroup_gene": "CYP3A5"}
    found = plan(analysis=analysis, patients=40)
    first, again = replicate(1, found), replicate(1, found)
    assert first.comparisons == again.comparisons
    assert first.cells == again.cells
    assert replicate(0, found).cells != first.cells
    assert {(row.arm, row.endpoint) for row in first.comparisons} == {
        (arm, endpoint) for arm in (1, 2, 3) for endpoint in (0, 1)
    }
    assert all((row.adjusted is not None) == (row.endpoint == 0) for row in first.comparisons)
    for arm in range(4):
        whole = first.cells[arm, 0, ""]
        parts = [cell for key, cell in first.cells.items() if key[:2] == (arm, 0) and key[2]]
        assert whole.patients == 10 == sum(cell.patients for cell in parts)
        assert whole.total == pytest.approx(sum(cell.total for cell in parts))


@pytest.mark.parametrize("by", ["history", "twin"])
def test_both_scores_foretell_something(by: str) -> None:
    prognosis = {"by": by, "patients": 1000, "draws": 20}
    analysis = {"control": "fixed", "prognosis": prognosis}
    found = plan("fixed", "gene", patients=600, analysis=analysis)
    assert 0.1 < replicate(1, found).score_correlation < 0.9


def test_more_patients_do_not_change_those_that_were_there() -> None:
    small, large = (ran(plan("fixed", "level", patients=size), 1) for size in (50, 201))
    assert (small[0].levels == large[0].levels[:50]).all()
    assert (small[0].prescribed == large[0].prescribed[:50]).all()


def test_the_double_is_a_model_whose_area_is_the_integral_of_its_level() -> None:
    course, group = ran(plan("fixed", "gene", patients=8))
    hours = torch.arange(0, 168.001, 0.05, dtype=torch.float64).repeat(8, 1)
    model = OneCompartment(name="x", gene_factor=2.0)
    levels = model.predict(course.batch, group.truth.effects, hours)
    area = model.exposure(course.batch, group.truth.effects, hours[:, -1:])
    assert torch.trapezoid(levels, hours).numpy() == pytest.approx(area[:, 0].numpy(), rel=1e-4)
