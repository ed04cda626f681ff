"""The search for a regimen: what is best, what is set aside, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch

from fedtwin_twins.advice.assessment import Assessment, Horizon, Outlook, assess
from fedtwin_twins.advice.limits import Ceiling, Limits, broken_limits
from fedtwin_twins.advice.proposal import Proposal
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.search import Goal, choose, regimens_of
from fedtwin_twins.advice.targets import Target
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal, Unreachable

from .patients import GOTI, goti_known, mg

AREA = Target(
    kind="area_24h",
    observable="concentration",
    low=Quantity(400, "mg/L.h"),
    high=Quantity(600, "mg/L.h"),
)
LIMITS = Limits(largest_dose=mg(3000), largest_daily=mg(4500), largest_change=None)
AFTER_DAYS = Horizon(start_h=0.0, judged_h=120.0)
FOR_EVER = Horizon(start_h=0.0)
DOSES = regimens_of([mg(a) for a in (500, 1000, 1500, 2000)], [12.0, 24.0], "intravenous", [2.0])


def outlook(
    spread: float = 0.2, draws: int = 200, share: float = 1.0, shift: float = 0.0
) -> Outlook:
    """Clearance between patients by a fixed net of draws."""
    known = goti_known([0.0, 0.0, 0.0])
    marks = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    effects = torch.zeros(draws, 3, dtype=torch.float64)
    effects[:, 0] = shift + spread * torch.special.ndtri(marks)
    return Outlook(
        model=GOTI,
        batch=known.batch,
        effects=effects,
        weights=torch.full((draws,), 1 / draws, dtype=torch.float64),
        share=share,
    )


def infusion(amount: float, interval: float = 12.0) -> Regimen:
    return Regimen(amount=mg(amount), interval_h=interval, route="intravenous", duration_h=2.0)


def only(found: Sequence[Assessment]) -> Assessment:
    (one,) = found
    return one


def test_the_best_is_the_most_probable_of_all() -> None:
    found = choose([outlook()], DOSES, Goal(targets=[AREA]), LIMITS, FOR_EVER)
    each = assess([outlook()], DOSES, [AREA], FOR_EVER)
    most = max(one.all_inside for one in each)
    assert found.best.all_inside >= most - 0.01
    assert 0.5 < most < 1.0
    ranked = [one.all_inside for one in found.others]
    assert ranked == sorted(ranked, reverse=True)


def test_of_equals_the_smaller_daily_amount_and_the_longer_interval() -> None:
    """The area over a day does not depend on how a daily amount is divided."""
    same = [infusion(375, 6.0), infusion(1500, 24.0), infusion(750, 12.0)]
    found = choose([outlook()], same, Goal(targets=[AREA]), LIMITS, FOR_EVER)
    assert found.best.regimen == infusion(1500, 24.0)


def test_probabilities_are_shares_of_draws() -> None:
    one = only(assess([outlook()], [infusion(1000)], [AREA], FOR_EVER)).attainments[0]
    assert one.inside + one.below + one.above == pytest.approx(1.0)
    clearance = 4.5 * (65 / 120) ** 0.8
    middle = 2000 / clearance
    assert one.middle == pytest.approx(middle, rel=5e-3)
    z = torch.tensor([0.0, 600 / middle, 400 / middle]).double().log() / 0.2
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = float(normal.cdf(-z[1]))
    assert one.above == pytest.approx(expected, abs=0.01)
    assert one.band[0] < one.middle < one.band[1]


def test_models_share_the_belief_and_stay_visible() -> None:
    fast, slow = outlook(shift=0.7, share=3.0), outlook(shift=-0.1, share=1.0)
    slow = replace(slow, model=_Named(slow.model, "slow"))
    alone = [
        only(assess([one], [infusion(1000)], [AREA], FOR_EVER)).all_inside for one in (fast, slow)
    ]
    both = only(assess([fast, slow], [infusion(1000)], [AREA], FOR_EVER))
    assert both.all_inside == pytest.approx(0.75 * alone[0] + 0.25 * alone[1])
    assert both.attainments[0].by_model == {
        GOTI.name: pytest.approx(alone[0]),
        "slow": pytest.approx(alone[1]),
    }


def test_a_draw_without_a_number_is_refused_and_never_counted_as_in_range() -> None:
    lost = outlook()
    lost.effects[7, 0] = torch.nan
    with pytest.raises(Refusal, match="no finite number for 1 of 200 draws"):
        choose([lost], DOSES, Goal(targets=[AREA]), LIMITS, FOR_EVER)
    lost.weights[7] = 0.0
    assert choose([lost], DOSES, Goal(targets=[AREA]), LIMITS, FOR_EVER).best.all_inside > 0.5


class _Named:
    """The same model under another name."""

    def __init__(self, model: object, name: str) -> None:
        self._model, self.name = model, name

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)


def test_a_ceiling_sets_aside_what_harms_too_often() -> None:
    harm = Target(kind="area_24h", observable="concentration", high=Quantity(550, "mg/L.h"))
    strict = replace(LIMITS, ceilings=[Ceiling(exposure=harm, most=0.1)])
    loose = choose([outlook()], DOSES, Goal(targets=[AREA]), LIMITS, FOR_EVER)
    found = choose(
        [outlook()], DOSES, Goal(targets=[AREA], least_probability=0.1), strict, FOR_EVER
    )
    assert found.best.regimen.daily("mg") < loose.best.regimen.daily("mg")
    reasons = [str(reason) for one in found.set_aside for reason in one.reasons]
    assert any("above 550 mg/L.h" in reason for reason in reasons)


@pytest.mark.case("E01")
def test_a_goal_out_of_reach_is_refused_with_every_reason() -> None:
    small = [infusion(100), infusion(4000)]
    with pytest.raises(Unreachable) as refused:
        choose([outlook()], small, Goal(targets=[AREA]), LIMITS, FOR_EVER)
    said = str(refused.value)
    assert "0% with 100 mg over 2 h every 12 h" in said
    assert "at least 50%" in said
    assert "at most 3000, the largest single dose" in said


def test_nothing_allowed_is_refused() -> None:
    gene = Problem(field="DPYD", value="activity score 0", remedy="choose another drug")
    with pytest.raises(Unreachable, match="activity score 0"):
        choose(
            [outlook()],
            DOSES,
            Goal(targets=[AREA]),
            replace(LIMITS, forbidden=[gene]),
            AFTER_DAYS,
        )
    with pytest.raises(Refusal, match="at least one that can be given"):
        choose([outlook()], [], Goal(targets=[AREA]), LIMITS, AFTER_DAYS)


@pytest.mark.parametrize(
    ("regimen", "change", "says"),
    [
        (infusion(3500, 24.0), {}, "largest single dose"),
        (infusion(2500, 12.0), {}, "largest daily dose"),
        (infusion(500, 12.0), {"smallest_interval_h": 24.0}, "at least 24"),
        (infusion(2000, 24.0), {"largest_rate": Quantity(900, "mg/h")}, "largest infusion rate"),
        (infusion(1000), {"largest_change": 0.5}, "within 50% of the present 1000"),
        (replace(infusion(500), loading=mg(3200)), {}, "largest single dose"),
    ],
)
def test_every_limit_is_hard(regimen: Regimen, change: dict[str, object], says: str) -> None:
    found = broken_limits(regimen, replace(LIMITS, **change), infusion(500))
    assert len(found) == 1
    assert says in str(found[0])


def test_what_lies_on_a_limit_is_allowed() -> None:
    at_limit = [infusion(3000, 24.0), infusion(2250, 12.0)]
    assert [broken_limits(one, LIMITS) for one in at_limit] == [[], []]
    half_more = replace(LIMITS, largest_change=0.5)
    assert broken_limits(infusion(750), half_more, infusion(500)) == []


def test_a_proposal_checks_its_limits_and_needs_a_name() -> None:
    best = choose([outlook()], DOSES, Goal(targets=[AREA]), LIMITS, FOR_EVER).best
    proposal = Proposal(assessment=best, limits=LIMITS)
    assert not proposal.is_signed
    now = datetime(2026, 3, 1, tzinfo=UTC)
    signed = proposal.signed("Dr. A. Ward", now)
    assert signed.is_signed
    with pytest.raises(Refusal, match="a name"):
        proposal.signed(" ", now)
    with pytest.raises(Refusal, match="time zone"):
        proposal.signed("Dr. A. Ward", datetime(2026, 3, 1))
    with pytest.raises(Refusal, match="largest single dose"):
        Proposal(assessment=best, limits=replace(LIMITS, largest_dose=mg(100)))


@pytest.mark.parametrize("amount", [-5.0, 0.0, float("nan")])
def test_no_dose_is_no_regimen(amount: float) -> None:
    with pytest.raises(Refusal):
        infusion(amount)


def test_an_infusion_never_lasts_longer_than_its_interval() -> None:
    found = regimens_of([mg(500)], [6.0, 24.0], "intravenous", [2.0, 12.0])
    assert [(one.interval_h, one.duration_h) for one in found] == [(6, 2), (24, 2), (24, 12)]


def test_a_single_dose_is_given_once_and_has_no_steady_state() -> None:
    once, often = replace(infusion(1_000.0), once=True), infusion(1_000.0)
    assert str(once) == "1000 mg over 2 h once intravenous"
    assert (once.daily("mg"), often.daily("mg")) == (1_000.0, 2_000.0)
    area = Target(kind="cumulative_area", observable="concentration", high=Quantity(1e4, "mg/L.h"))
    day = Horizon(start_h=0.0, judged_h=24.0)
    first, second = assess([outlook()], [once, often], [area], day)
    assert first.attainments[0].middle < 0.8 * second.attainments[0].middle
    with pytest.raises(Refusal, match="steady state of 1000 mg over 2 h once"):
        assess([outlook()], [once], [area], Horizon(start_h=0.0))
    with pytest.raises(Refusal, match="none before a single dose"):
        replace(once, loading=mg(1_500.0))


def test_what_else_forbids_a_regimen_sets_it_aside() -> None:
    goal = Goal(targets=[AREA], least_probability=0.01)
    reason = Problem(field="doses at steady state", value="too much")
    regimens = [infusion(750.0), infusion(1_000.0)]
    found = choose([outlook()], regimens, goal, LIMITS, FOR_EVER, refused=[[reason], []])
    assert found.best.regimen == regimens[1]
    assert [one.reasons for one in found.set_aside] == [(reason,)]
