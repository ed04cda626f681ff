"""What a schedule should reach, and what one draw of a patient reaches under it.

With C(t) an observable over a window from s to e, M the minimal inhibitory concentration and u the
unbound fraction:

| kind | what | unit |
|---|---|---|
| `trough` | C(e), just before the next dose | of C |
| `peak` | the largest C | of C |
| `mean` | area / (e - s) | of C |
| `area` | integral of C from s to e | of C x h |
| `area_24h` | area x 24 h / (e - s) | of C x h |
| `cumulative_area` | integral of C from hour 0 to e | of C x h |
| each of them `_per_mic` | the same, divided by M | 1 or h |
| `time_above_mic` | part of the window with C > M | % |
| `unbound_time_above_mic` | part of the window with u C > M | % |
| `time_in_range` | part of the window with C between the two limits | % |

The first fourteen are those of clinical dosing programs (Tucuxi lists the same); the last one is
for glucose and coagulation. A peak is looked for at `GRID` times, just after every dose that goes
in at once, and at the end of every infusion. A window begins just after its start: with the dose
then.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, refuse_if_any

TargetKind = Literal[
    "trough",
    "peak",
    "mean",
    "area",
    "area_24h",
    "cumulative_area",
    "trough_per_mic",
    "peak_per_mic",
    "mean_per_mic",
    "area_per_mic",
    "area_24h_per_mic",
    "cumulative_area_per_mic",
    "time_above_mic",
    "unbound_time_above_mic",
    "time_in_range",
]
GRID: Final = 97
"""Times in a window at which a curve is looked at: every quarter of an hour of a day."""
_PER_MIC: Final = "_per_mic"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A range that is to be reached in a window.

    Attributes:
        kind: see the table above.
        observable: by name, one of the model's.
        low: of the range; none: no lower limit.
        high: of the range; none: no upper limit.
        inhibitory_concentration: M, for the kinds that need it.
        unbound_fraction: u, above 0 and at most 1.
        within: for `time_in_range`, the two limits of the observable.
        source: who says that this range is good.

    Raises:
        Refusal: a range that is reversed, empty or missing, or a number that its kind needs.
    """

    kind: TargetKind
    observable: str
    low: Quantity | None = None
    high: Quantity | None = None
    inhibitory_concentration: Quantity | None = None
    unbound_fraction: float = 1.0
    within: tuple[Quantity, Quantity] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        refuse_if_any(self._problems())

    @property
    def needs_mic(self) -> bool:
        """Whether it is measured against the minimal inhibitory concentration."""
        return self.kind.endswith("mic")

    @property
    def words(self) -> str:
        """Such as `area 24h of concentration`, or `time of glucose below 3.9 mmol/L`."""
        if self.within is None:
            return f"{self.kind.replace('_', ' ')} of {self.observable}"
        low, high = self.within
        between = f"from {low.value:g} to {high}" if low.value > 0 else f"below {high}"
        return f"time of {self.observable} {between}"

    def unit(self, observed: str) -> str:
        """Of what is reached, where the observable is measured in `observed`."""
        kind = self.kind.removesuffix(_PER_MIC)
        if kind in {"time_above_mic", "unbound_time_above_mic", "time_in_range"}:
            return "%"
        area = "area" in kind
        if self.kind.endswith(_PER_MIC):
            return "h" if area else "1"
        return f"{observed}.h" if area else observed

    def _problems(self) -> list[Problem]:
        if self.kind not in get_args(TargetKind):
            kinds = ", ".join(get_args(TargetKind))
            return [Problem(field="target.kind", value=str(self.kind), allowed=kinds)]
        found = self._range_problems()
        mic = self.inhibitory_concentration
        if self.needs_mic and (mic is None or mic.value <= 0):
            found.append(
                Problem(
                    field="target.inhibitory_concentration",
                    value="" if mic is None else str(mic),
                    allowed="above 0",
                    remedy=f"a target of kind {self.kind} needs the pathogen's concentration",
                )
            )
        if not 0.0 < self.unbound_fraction <= 1.0:
            allowed, value = "above 0 and at most 1", f"{self.unbound_fraction:g}"
            found.append(Problem(field="target.unbound_fraction", value=value, allowed=allowed))
        if (self.kind == "time_in_range") != (self.within is not None):
            allowed = "two limits of the observable, for time_in_range and no other kind"
            found.append(Problem(field="target.within", allowed=allowed))
        elif self.within is not None:
            low, high = self.within
            if not low.value < high.to(low.unit, field="target.within"):
                value, allowed = f"{low} to {high}", "from low to high"
                found.append(Problem(field="target.within", value=value, allowed=allowed))
        return found

    def _range_problems(self) -> list[Problem]:
        low, high = self.low, self.high
        if low is None and high is None:
            return [Problem(field="target", allowed="a lower limit, an upper limit, or both")]
        if low is None or high is None or low.value < high.to(low.unit, field="target.high"):
            return []
        return [
            Problem(
                field="target.low",
                value=str(low),
                allowed=f"less than the upper limit, {high}",
                remedy="swap the two limits if they were written the wrong way round",
            )
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """From when to when, in hours from the origin, each (rows,)."""

    start: Tensor
    end: Tensor

    def grid(self) -> Tensor:
        """(rows, GRID) times from just after the start to the end, which is included."""
        part = torch.linspace(0.0, 1.0, GRID, dtype=self.start.dtype, device=self.start.device)
        times = self.start[:, None] + (self.end - self.start)[:, None] * part
        return torch.cat([_just_after(times[:, :1]), times[:, 1:]], dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A target's limits in the unit of what is reached."""

    low: float
    high: float
    unit: str


def place_of(model: TwinModel, observable: str) -> int:
    """Which of the model's observables it is.

    Raises:
        Refusal: none.
    """
    names = [one.name for one in model.observables]
    if observable not in names:
        refuse_if_any(
            [Problem(field="target.observable", value=observable, allowed=" or ".join(names))]
        )
    return names.index(observable)


def range_of(model: TwinModel, target: Target) -> Range:
    """A target's limits as numbers.

    Raises:
        Refusal: the observable or a unit does not fit the model.
    """
    unit = target.unit(model.observables[place_of(model, target.observable)].unit)
    low, high = target.low, target.high
    return Range(
        low=-torch.inf if low is None else low.to(unit, field="target.low"),
        high=torch.inf if high is None else high.to(unit, field="target.high"),
        unit=unit,
    )


@dataclass(slots=True)
class Curves:
    """Observables of some rows at the times of a window: each is predicted once for all targets.

    Attributes:
        model: whose observables they are.
        batch: one row for each patient, draw or schedule.
        effects: (rows, effects).
        window: of each row.
    """

    model: TwinModel
    batch: Batch
    effects: Tensor
    window: Window
    _known: dict[int, Tensor] = field(default_factory=dict)

    def at(self, place: int) -> Tensor:
        """One observable over the window's grid, (rows, GRID)."""
        if place not in self._known:
            grid = self.window.grid()
            self._known[place] = self.model.predict(self.batch, self.effects, grid, place)
        return self._known[place]


def reached(
    model: TwinModel, batch: Batch, effects: Tensor, target: Target, window: Window
) -> Tensor:
    """What each row reaches, (rows,), in the target's unit.

    Args:
        model: whose observable it is.
        batch: one row for each patient, draw or schedule.
        effects: (rows, effects).
        target: what is asked.
        window: of each row.

    Raises:
        Refusal: the observable or a unit does not fit the model.
    """
    curves = Curves(model=model, batch=batch, effects=effects, window=window)
    return reached_along(curves, target)


def reached_along(curves: Curves, target: Target) -> Tensor:
    """The same where several targets are asked of the same rows."""
    model, batch, effects, window = curves.model, curves.batch, curves.effects, curves.window
    place = place_of(model, target.observable)
    unit = model.observables[place].unit
    kind = target.kind.removesuffix(_PER_MIC)
    if kind.endswith("mic") or kind == "time_in_range":
        unbound = target.unbound_fraction if kind == "unbound_time_above_mic" else 1.0
        return 100.0 * _part_between(curves.at(place) * unbound, *_limits(target, unit))
    if "area" in kind or kind == "mean":
        value = _area(model, batch, effects, window, place, kind)
    elif kind == "trough":
        value = model.predict(batch, effects, window.end[:, None], place)[:, 0]
    else:
        value = model.predict(batch, effects, _peak_times(batch, window), place).amax(dim=1)
    mic = target.inhibitory_concentration
    if target.kind.endswith(_PER_MIC) and mic is not None:
        value = value / mic.to(unit, field="target.inhibitory_concentration")
    return value


def _area(
    model: TwinModel, batch: Batch, effects: Tensor, window: Window, place: int, kind: str
) -> Tensor:
    ends = torch.stack([window.start, window.end], dim=1)
    areas = model.exposure(batch, effects, ends, place)
    if kind == "cumulative_area":
        return areas[:, 1]
    area = areas[:, 1] - areas[:, 0]
    hours = window.end - window.start
    return {"area": area, "area_24h": area * 24.0 / hours, "mean": area / hours}[kind]


def _peak_times(batch: Batch, window: Window) -> Tensor:
    """The grid, and when infusions end or doses are in; others become the window's end."""
    stops = _just_after(batch.doses.time + batch.doses.duration)
    start, end = window.start[:, None], window.end[:, None]
    inside = (batch.doses.amount > 0) & (stops > start) & (stops < end)
    return torch.cat([window.grid(), torch.where(inside, stops, end)], dim=1)


def _just_after(times: Tensor) -> Tensor:
    """The next numbers: a dose at a time counts after it."""
    return torch.nextafter(times, torch.full_like(times, torch.inf))


def _limits(target: Target, unit: str) -> tuple[float, float]:
    mic = target.inhibitory_concentration
    if target.within is not None:
        low, high = (one.to(unit, field="target.within") for one in target.within)
        return low, high
    if mic is None:
        return -torch.inf, torch.inf
    return mic.to(unit, field="target.inhibitory_concentration"), torch.inf


def _part_between(curve: Tensor, low: float, high: float) -> Tensor:
    """The part of the time that a curve, straight between the grid's times, spends in a range."""
    first, last = curve[:, :-1], curve[:, 1:]
    bottom, top = torch.minimum(first, last), torch.maximum(first, last)
    width = top - bottom
    inside = (top.clamp(max=high) - bottom.clamp(min=low)).clamp(min=0.0)
    flat = ((bottom >= low) & (bottom <= high)).to(curve.dtype)
    part = torch.where(width > 0, inside / width.clamp(min=torch.finfo(curve.dtype).tiny), flat)
    return part.mean(dim=1)
