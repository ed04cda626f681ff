"""Steps and LSODA, against the closed form and each other."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from fedtwin_twins.kinetics import advancing, fixed_step, stiff
from fedtwin_twins.kinetics.events import OBSERVATION_FIRST, Order, Route
from fedtwin_twins.kinetics.lengths import Lengths
from fedtwin_twins.kinetics.systems import (
    Advance,
    States,
    System,
    michaelis_menten,
    written_out,
)
from fedtwin_twins.twin.refusals import Refusal

from .oracle import DOUBLE, Body, Dose, Way, column, make_doses, make_kinetics, row

BODY = Body(10.0, 50.0, [(5.0, 100.0)], [Way(1, 0.9), Way(0)])
DOSES = [Dose(0.0, 100.0), Dose(7.3, 60.0, 2.0, 1), Dose(24.0, 100.0)]
OTHERS = [Dose(1.1, 80.0, 0.0, 1)]
TIMES = [0.4, 24.0, 3.0, 9.3, 24.5, 40.0]


def right_side(_, states, values):
    depot, central, tissue = states
    level = central / values["volume"]
    out, back = values["flow"] * level, values["flow"] * tissue / values["tissue"]
    absorbed = values["absorption"] * depot
    return -absorbed, absorbed - values["clearance"] * level - out + back, out - back


def system(patients: int = 1, **changes: object) -> System:
    values = {
        "volume": 50.0, "flow": 5.0, "tissue": 100.0, "absorption": 0.9, "clearance": 10.0,
    }  # fmt: skip
    whole = System(
        right_side=right_side,
        start=(torch.zeros(patients, dtype=DOUBLE),) * 3,
        values={name: column(*[value] * patients) for name, value in values.items()},
        into=(0, 1),
        routes=(Route(), Route()),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def expected(doses: list[list[Dose]], order: Order = OBSERVATION_FIRST) -> np.ndarray:
    kinetics = make_kinetics([[(-np.inf, BODY)]] * len(doses), order)
    return kinetics.amounts(make_doses(doses), row(TIMES).expand(len(doses), -1)).numpy()


def test_steps_meet_every_event_of_every_patient() -> None:
    schedules = [DOSES, OTHERS]
    doses, times = make_doses(schedules), row(TIMES).expand(2, -1)
    found = fixed_step.solve(system(2), doses, times, 0.9, step_h=0.05)
    assert found[1].numpy() == pytest.approx(expected(schedules)[..., 0], rel=1e-6, abs=1e-9)
    assert found[2].numpy() == pytest.approx(expected(schedules)[..., 1], rel=1e-6, abs=1e-9)


def test_the_error_falls_with_the_fourth_power_of_the_step() -> None:
    doses = make_doses([DOSES])
    errors = [
        np.abs(
            fixed_step.solve(system(), doses, row(TIMES), 0.9, step_h=step)[1].numpy()
            - expected([DOSES])[..., 0]
        ).max()
        for step in (0.5, 0.25)
    ]
    assert 10 < errors[0] / errors[1] < 24


def counted(whole: System) -> tuple[advancing.Advancing, list[int]]:
    """A way to step, and how often it was gone."""
    by, count = advancing.advancing(whole), [0]

    def once(advance: Advance | None) -> Advance:
        def step(*given: Any) -> States:
            assert advance is not None
            count[0] += 1
            return advance(*given)

        return step

    return replace(by, step=once(by.step), watched=once(by.watched)), count


def test_steps_grow_as_doses_fade_and_meet_every_event() -> None:
    schedules = [DOSES, OTHERS]
    doses, times = make_doses(schedules), row([*TIMES, 72.0]).expand(2, -1)
    by, count = counted(system(2))
    found = fixed_step.solve(system(2), doses, times, 0.9, by=by)
    grown, count[0] = count[0], 0
    even = fixed_step.solve(system(2), doses, times, 0.9, step_h=fixed_step.FINE / 0.9, by=by)
    assert grown < 0.5 * count[0]
    exact = expected(schedules)
    for steps in (found, even):
        assert steps[1][:, :-1].numpy() == pytest.approx(exact[..., 0], rel=1e-3, abs=1e-6)


def test_what_does_not_fade_is_stepped_as_finely_as_it_must_be() -> None:
    turning = System(
        right_side=lambda _, states, values: (
            values["rate"] * states[1], -values["rate"] * states[0]
        ),
        start=(torch.ones(1, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE)),
        values={"rate": column(0.9)},
    )  # fmt: skip
    run = partial(fixed_step.solve, turning, make_doses([[]]), row([40.0, 80.0]), 0.9)
    found, fine = run(), run(step_h=fixed_step.FINE / 0.9)
    assert all(torch.equal(one, other) for one, other in zip(found, fine, strict=True))
    assert found[0][0].numpy() == pytest.approx(np.cos([36.0, 72.0]), abs=0.05)


def test_lengths_count_hours_in_steps_and_back() -> None:
    lengths = Lengths(first=0.2, longest=0.9, growth=0.3)
    hours = torch.linspace(0.0, 20.0, 401, dtype=DOUBLE)
    taken = lengths.taken(hours)
    assert lengths.since(taken).numpy() == pytest.approx(hours.numpy(), abs=1e-12)
    ends = lengths.since(torch.arange(30.0, dtype=DOUBLE))
    sizes, begin = ends.diff(), ends[:-1]
    planned = (0.3 * begin).clamp(min=0.2, max=0.9)
    assert bool((sizes >= planned - 1e-12).all())
    assert bool((sizes <= (0.3 * ends[1:]).clamp(min=0.2, max=0.9) + 1e-12).all())


def test_a_dose_at_an_asked_time_as_the_order_says() -> None:
    order = Order(dose_first=True)
    bolus = [Dose(3.0, 60.0, 0.0, 1)]
    found = fixed_step.solve(system(order=order), make_doses([bolus]), row(TIMES), 0.9, step_h=0.1)
    assert found[1].numpy() == pytest.approx(expected([bolus], order)[..., 0], rel=1e-5, abs=1e-9)
    assert float(found[1][0, 2]) == 60.0


def test_changing_parameters_keep_amounts() -> None:
    other = Body(20.0, 30.0, [(5.0, 100.0)], BODY.ways)
    kinetics = make_kinetics([[(-np.inf, BODY), (5.5, other)]])
    exact = kinetics.amounts(make_doses([DOSES]), row(TIMES))[..., 0]
    values = dict(system().values)
    values["volume"] = torch.tensor([[50.0, 30.0]], dtype=DOUBLE)
    values["clearance"] = torch.tensor([[10.0, 20.0]], dtype=DOUBLE)
    changing = system(values=values, starts=torch.tensor([[-torch.inf, 5.5]], dtype=DOUBLE))
    found = fixed_step.solve(changing, make_doses([DOSES]), row(TIMES), 1.0, step_h=0.05)
    assert found[1].numpy() == pytest.approx(exact.numpy(), rel=1e-5)
    exactly = stiff.solve(changing, make_doses([DOSES]), row(TIMES))
    assert exactly[1].numpy() == pytest.approx(exact.numpy(), rel=1e-6)


def test_the_same_doses_may_enter_each_patient_otherwise() -> None:
    doses, times = make_doses([DOSES] * 2), row(TIMES).expand(2, -1)
    routes = (Route(lag=column(0.2, 0.9), bioavailability=column(1.0, 0.5)), Route())
    lasting = (Route(), Route(duration=column(1.0, 3.0)))
    changing = torch.tensor([[-torch.inf, 5.0], [-torch.inf, 9.0]], dtype=DOUBLE)
    volume = {"volume": torch.tensor([[50.0, 30.0], [40.0, 60.0]], dtype=DOUBLE)}
    for changes in (
        {"routes": routes},
        {"routes": lasting},
        {"starts": changing, "values": {**system(2).values, **volume}},
    ):
        whole = system(2, **changes)
        found = fixed_step.solve(whole, doses, times, 0.9)[1]
        alone = [
            fixed_step.solve(whole.some(slice(one, one + 1)), make_doses([DOSES]), row(TIMES), 0.9)[
                1
            ]
            for one in range(2)
        ]
        assert found.numpy() == pytest.approx(torch.cat(alone).numpy(), rel=1e-3, abs=1e-6)


def test_single_precision_serves_display() -> None:
    start = tuple(one.float() for one in system().start)
    values = {name: one.float() for name, one in system().values.items()}
    found = fixed_step.solve(
        system(start=start, values=values), make_doses([DOSES]), row(TIMES), 0.9, step_h=0.05
    )
    assert found[1].dtype == torch.float32
    assert found[1].numpy() == pytest.approx(expected([DOSES])[..., 0], rel=1e-4)


def test_derivatives() -> None:
    def level(
        clearance: torch.Tensor, lag: torch.Tensor, step_h: float | None = 0.5
    ) -> torch.Tensor:
        values = {**system().values, "clearance": clearance}
        late = system(values=values, routes=(Route(lag=lag), Route()))
        return fixed_step.solve(
            late, make_doses([DOSES]), row(TIMES[:3]), 0.9, step_h=step_h
        )[1]  # fmt: skip

    given = (column(10.0).requires_grad_(), column(0.3).requires_grad_())
    assert gradcheck(level, given)
    # Grown steps are not moved by what is derived by, so they have a derivative of their own.
    slopes = [
        torch.autograd.grad(level(*given, step_h=step_h).sum(), given) for step_h in (0.02, None)
    ]
    for fine, grown in zip(*slopes, strict=True):
        assert grown.numpy() == pytest.approx(fine.numpy(), rel=2e-3)


def test_coarse_steps_and_stiff_systems_are_refused() -> None:
    doses, times = make_doses([DOSES]), row(TIMES)
    with pytest.raises(Refusal, match=r"step_h is 2 h; expected at most 1\.11111"):
        fixed_step.solve(system(), doses, times, 0.9, step_h=2.0)
    with pytest.raises(Refusal, match="use the solver for stiff systems"):
        fixed_step.solve(system(), doses, times, 1e5)
    with pytest.raises(Refusal, match="step_h is nan"):
        fixed_step.solve(system(), doses, times, float("nan"))


def test_without_a_compiler_the_plain_step_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    by = advancing.compiled(system())
    assert "not compiled" in str(by.caution)
    found = fixed_step.solve(system(), make_doses([DOSES]), row(TIMES), 0.9, step_h=0.5, by=by)
    plain = fixed_step.solve(system(), make_doses([DOSES]), row(TIMES), 0.9, step_h=0.5)
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))


def test_steps_in_chains_are_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    by = advancing.compiled(system(2))
    assert by.caution is None
    doses, times = make_doses([DOSES] * 2), row(TIMES).expand(2, -1)
    for step_h in (0.1, None):
        found = fixed_step.solve(system(2), doses, times, 0.9, step_h=step_h, by=by)
        plain = fixed_step.solve(system(2), doses, times, 0.9, step_h=step_h)
        for one, other in zip(found, plain, strict=True):
            assert one.numpy() == pytest.approx(other.numpy(), rel=1e-12, abs=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_machine_code_says_the_same() -> None:
    by = advancing.compiled(system(2))
    assert by.caution is None
    alike = (torch.zeros(1, dtype=DOUBLE),) * 3
    for schedules, start in (
        ([DOSES] * 3, system(3).start), ([DOSES] * 4, alike), ([DOSES, OTHERS], alike),
        ([DOSES], alike),
    ):  # fmt: skip
        whole = system(len(schedules), start=start)
        doses, times = make_doses(schedules), row(TIMES).expand(len(schedules), -1)
        for step_h in (0.2, None):
            run = partial(fixed_step.solve, whole, doses, times, 0.9, step_h=step_h, answers=(1,))
            with torch.no_grad():
                found = run(by=by)
            assert found[0].numpy() == pytest.approx(run()[0].numpy(), rel=1e-12, abs=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_machine_code_is_derived_by() -> None:
    def slope(by: advancing.Advancing | None) -> torch.Tensor:
        clearance = column(10.0, 12.0).requires_grad_()
        whole = system(2)
        whole = replace(whole, values={**whole.values, "clearance": clearance})
        doses, times = make_doses([DOSES] * 2), row(TIMES[:3]).expand(2, -1)
        found = fixed_step.solve(whole, doses, times, 0.9, step_h=0.5, by=by)[1]
        (gradient,) = torch.autograd.grad(found.sum(), clearance)
        return gradient

    compiled = slope(advancing.compiled(system(2)))
    assert compiled.numpy() == pytest.approx(slope(None).numpy(), rel=1e-10)


def saturable(largest: float) -> System:
    """Phenytoin-like: everything goes out by one saturable way."""

    def change(_, states, values):
        level = states[0] / values["volume"]
        return (-michaelis_menten(level, values["largest"], values["half"]),)

    values = {"volume": column(50.0), "largest": column(largest), "half": column(5.0)}
    return System(
        right_side=change,
        start=(torch.zeros(1, dtype=DOUBLE),),
        values=values,
        largest_output=column(largest),
    )


def test_saturable_elimination_by_both() -> None:
    doses, times = make_doses([[Dose(0.0, 600.0), Dose(12.0, 600.0)]]), row([6.0, 12.0, 30.0])
    steps = fixed_step.solve(saturable(40.0), doses, times, 40 / 5 / 50)
    assert steps[0].numpy() == pytest.approx(
        stiff.solve(saturable(40.0), doses, times)[0].numpy(), rel=1e-5
    )


def test_its_steady_state_is_where_as_much_goes_out_as_comes_in() -> None:
    """Infusion without end: C = Km R/(Vmax - R)."""
    doses = make_doses([[Dose(0.0, 240.0, 12.0)]], [12.0])
    found = fixed_step.solve(saturable(40.0), doses, row([12.0]), 40 / 5 / 50)
    assert float(found[0]) / 50 == pytest.approx(5 * 20 / (40 - 20), rel=1e-3)


def test_a_steady_state_that_does_not_exist_is_refused() -> None:
    doses = make_doses([[Dose(0.0, 480.0)]], [12.0])
    for solve in (lambda: fixed_step.solve(saturable(40.0), doses, row([1.0]), 0.16),
                  lambda: stiff.solve(saturable(40.0), doses, row([1.0]))):  # fmt: skip
        with pytest.raises(Refusal, match="no steady state exists"):
            solve()


def test_written_out_doses_end_where_the_steady_state_is() -> None:
    doses = make_doses([[Dose(5.0, 10.0)], [Dose(5.0, 10.0)]], [12.0, 0.0])
    found = written_out(doses, 2)
    assert found.time.tolist() == [[-19.0, -7.0, 5.0], [5.0, np.inf, np.inf]]
    assert found.amount.tolist() == [[10.0, 10.0, 10.0], [10.0, 0.0, 0.0]]
    assert float(found.interval.abs().max()) == 0.0


def test_a_stiff_system() -> None:
    """A fast exchange, 2,000/h, beside a slow loss: as the two in equilibrium."""

    def change(_, states, values):
        there, back = 2000.0 * states[0], 1000.0 * states[1]
        return (-there + back - values["loss"] * states[0], there - back)

    whole = System(
        right_side=change,
        start=(torch.zeros(1, dtype=DOUBLE),) * 2,
        values={"loss": column(0.3)},
    )
    found = stiff.solve(whole, make_doses([[Dose(0.0, 90.0)]]), row([10.0]))
    assert float(found[0]) == pytest.approx(30 * np.exp(-0.3 / 3 * 10), rel=1e-3)
