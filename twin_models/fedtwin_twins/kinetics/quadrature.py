"""Responses along a closed-form concentration, by Gauss points under an integrating factor.

Over a panel of length h a stage dX/dt = p(t) - l(t) X is

    X(t + h) = e^(-L(h)) X(t) + int_0^h e^(-(L(h) - L(s))) p(t + s) ds,   L(s) = int_0^s l

whose integrals are Gauss sums (Hochbruck and Ostermann 2010, Acta Numerica 19:209). A panel's map
of X is linear, so that all panels are worked out at once and then chained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedtwin_twins.kinetics.courses import Course, CourseInput, course
from fedtwin_twins.kinetics.curves import Curve, curve, once, outer
from fedtwin_twins.kinetics.events import alike, at_spans, of_rows, span_places
from fedtwin_twins.kinetics.linear import BLOCK, LinearKinetics
from fedtwin_twins.kinetics.panels import (
    NODES,
    POINTS,
    TOLERANCE,
    UNTIL,
    WEIGHTS,
    Pieces,
    Rates,
    pieces,
)
from fedtwin_twins.kinetics.turnover import Moment, Stage, Values
from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.refusals import Problem, Refusal

NUMBERS = 400_000
"""Points of patients that are worked on together on a CPU: few enough for its cache."""


def responses(
    kinetics: LinearKinetics,
    doses: Doses,
    times: Tensor,
    stages: Sequence[Stage],
    since: float = 0.0,
    *,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """Every stage along the concentration.

    Args:
        kinetics: of the drug.
        doses: (patients, doses); those before `since` count for the concentration.
        times: h, (patients, times), in any order.
        stages: each may follow the concentration and the stage before it.
        since: h, when every stage is at its start; asked before it, it is there still.
        tolerance: relative error of a response that is accepted, from 1e-9 to 1e-2; the panels
            of the integrals are chosen by it, and it is met where responses are as smooth as
            those of `turnover`.

    Returns:
        (patients, times, stages).

    Raises:
        Refusal: as `LinearKinetics.concentrations`; a steady state of doses, which is none of the
            response.
    """
    if bool((doses.interval > 0).any()):
        patient, dose = (int(place) for place in (doses.interval > 0).nonzero()[0])
        raise Refusal(
            Problem(
                field=f"patients[{patient}].doses[{dose}].interval",
                value=f"{float(doses.interval[patient, dose]):g}",
                unit="h",
                allowed="0 where a response follows the concentration",
                remedy="write out the doses from before the steady state on",
            )
        )
    if not 1e-9 <= tolerance <= 1e-2:
        raise Refusal(
            Problem(field="tolerance", value=f"{tolerance:g}", allowed="from 1e-9 to 1e-2")
        )
    given = kinetics.given(doses)
    patients = times.shape[0]
    times = alike(times)
    step = BLOCK if times.device.type == "cpu" else patients
    parts = [
        _block(given.some(rows), of_rows(times, rows), _some(stages, rows), since, tolerance)
        for rows in (slice(first, first + step) for first in range(0, patients, step))
    ]
    return torch.cat(parts)


def _some(stages: Sequence[Stage], rows: slice) -> list[Stage]:
    return [
        _with(stage, {name: of_rows(value, rows) for name, value in stage.values.items()})
        for stage in stages
    ]


def _with(stage: Stage, values: Values) -> Stage:
    return Stage(
        values=values,
        start=stage.start,
        production=stage.production,
        loss=stage.loss,
        fastest=stage.fastest,
        constant_loss=stage.constant_loss,
        bend=stage.bend,
    )


def _block(
    given: CourseInput, times: Tensor, stages: Sequence[Stage], since: float, tolerance: float
) -> Tensor:
    asked = times.clamp(min=since)
    history = course(given, asked, amounts=False, areas=False)
    horizon = asked.detach().amax(1, keepdim=True)
    if history.time.shape[0] == 1:
        horizon = horizon.amax(0, keepdim=True)
    elif asked.shape[0] == 1:
        asked = asked.expand(history.time.shape[0], -1)
        horizon = horizon.expand(history.time.shape[0], -1)
    rates = _with_bends(_rates(history, stages, tolerance), given, history, stages)
    cut = pieces(history.time, since, horizon, rates)
    points = cut.begin.shape[1] * (len(cut.edges) - 1) * POINTS + times.shape[1] * POINTS
    patients = given.doses.amount.shape[0]
    step = max(1, NUMBERS // points) if times.device.type == "cpu" else patients
    found = []
    for first in range(0, patients, step):
        rows = slice(first, first + step)
        part = _Part(history.some(rows), cut.some(rows), of_rows(given.starts, rows))
        found.append(_along(part, of_rows(asked, rows), _some(stages, rows)))
    return torch.cat(found)


def _rates(history: Course, stages: Sequence[Stage], tolerance: float) -> Rates:
    def largest(values: Tensor) -> float:
        return float(values.detach().max())

    chains = [chain for chain in history.medium.chains if chain.rate is not None]
    modes = [largest(rate) for rate in history.medium.modes.rates]
    absorbed = [largest(chain.rate) for chain in chains if chain.rate is not None]
    return Rates(
        fastest=max(modes + absorbed),
        # What follows another stage is given at points only, which takes panels half as wide.
        loss=min(len(stages), 2) * max(largest(stage.fastest(stage.values)) for stage in stages),
        stages=max((chain.stages for chain in chains if chain.stages > 1), default=0),
        tolerance=tolerance,
    )


def _with_bends(
    rates: Rates, given: CourseInput, history: Course, stages: Sequence[Stage]
) -> Rates:
    """With how fast concentrations pass through where a response bends, if some stage says where.

    A dose that would alone lead to r times that concentration passes it after 1/r of the time
    that it takes to come in, and comes back at the rate of the slowest mode.
    """
    bends = [stage.bend(stage.values) for stage in stages if stage.bend is not None]
    amount, duration = given.doses.amount.detach(), given.doses.duration
    if not bends or not amount.numel():
        return rates
    least = torch.stack([one.detach().amin() for one in bends]).amin()
    beyond = amount / (given.disposition.volume.detach().amin(1, keepdim=True) * least)
    running = torch.where(duration > 0, beyond / torch.where(duration > 0, duration, 1.0), 0.0)
    onset = max(rates.fastest * (1.0 + float(beyond.max())), float(running.max()))
    fading = min(float(rate.detach().max()) for rate in history.medium.modes.rates)
    return replace(rates, onset=onset, fading=fading)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some patients: their course, its pieces, and the starts of their parameters' spans."""

    history: Course
    cut: Pieces
    starts: Tensor

    def curve(self) -> tuple[Curve, Tensor]:
        """Of each piece: the concentration since an event, and the hour of that event."""

        def pick(values: Tensor) -> Tensor:
            return at_spans(values, self.cut.place)

        whole = curve(self.history.state, self.history.medium)
        return whole.at(pick), pick(self.history.time)

    def spans(self, times: Tensor) -> Tensor | None:
        """In which span of parameters each time lies."""
        if self.starts.shape[1] == 1:
            return None
        return span_places(self.starts.expand(times.shape[0], -1), times)


@dataclass(frozen=True, slots=True)
class _Panels:
    """Panels side by side, (panels, patients, pieces), and what drives stages at their points.

    Attributes:
        width: h, (panels, patients, pieces).
        event: h, (patients, pieces), the event before each piece.
        elapsed: h since then, (panels, points, patients, pieces).
        concentration: at the points, likewise.
        spans: of each piece, (patients, pieces); none: one for all.
    """

    width: Tensor
    event: Tensor
    elapsed: Tensor
    concentration: Tensor
    spans: Tensor | None

    def moment(self, stage: Stage, previous: Tensor) -> Moment:
        """What a stage is told at the points."""
        values = stage.values
        if self.spans is not None:
            spans = self.spans
            values = {name: at_spans(value, spans) for name, value in values.items()}
        return Moment(self.event, self.elapsed, self.concentration, previous, values)


def _panels(
    shape: Curve, event: Tensor, passed: Tensor, width: Tensor, spans: Tensor | None
) -> _Panels:
    """From the curve since events and the hours that have passed since then as panels begin."""
    elapsed = passed.unsqueeze(1) + width.unsqueeze(1) * _column(NODES, width)
    # Rounding may leave less than nothing.
    there = shape.after(elapsed).clamp(min=0.0)
    return _Panels(width, event, elapsed, there, spans)


def _along(part: _Part, asked: Tensor, stages: Sequence[Stage]) -> Tensor:
    """Every stage at every asked time."""
    cut = part.cut
    shape, event = part.curve()
    edges = torch.as_tensor(cut.edges, dtype=asked.dtype, device=asked.device)
    lower = edges[:-1, None, None]
    # Hours since the event, not hours of the clock, so that equal pieces stay equal to the bit.
    begin = cut.begin - event + cut.length * lower
    width = cut.length * edges.diff()[:, None, None]
    spans = part.spans(cut.begin)
    inside = _panels(shape, event, begin, width, spans)
    last, piece, panel = _last_panel(cut, edges, asked)

    def pick(values: Tensor) -> Tensor:
        return at_spans(values, piece)

    within = None if spans is None else pick(spans)
    passed, anchor = (asked - last).clamp(min=0.0), pick(event)
    until = _panels(shape.at(pick), anchor, (last - anchor)[None], passed[None], within)
    found = []
    before, then = inside.concentration, until.concentration
    for number, stage in enumerate(stages):
        first = stage.start(_first_values(stage, spans))
        further = number + 1 < len(stages)
        starts, before = _chained(inside, stage, before, first, further=further)
        chosen = at_spans(starts.movedim(0, 1).flatten(1), panel * cut.begin.shape[1] + piece)
        value, then = _step(until, stage, then, chosen[None], further=further)
        found.append(value[0])
    return torch.stack(found, dim=-1)


def _last_panel(cut: Pieces, edges: Tensor, asked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The panel in which each asked time lies: its hour, its piece, its place there."""
    known = cut.begin.detach()
    known = known[0] if known.shape[0] == 1 else known
    piece = torch.searchsorted(known, asked.detach().contiguous(), right=True)
    piece = piece.sub_(1).clamp_(min=0)
    begin, length = at_spans(cut.begin, piece), at_spans(cut.length, piece)
    passed = (asked - begin).detach() / torch.where(length > 0, length, 1.0).detach()
    panel = torch.bucketize(passed, edges[1:-1], right=True)
    return begin + length * edges[panel], piece, panel


def _first_values(stage: Stage, spans: Tensor | None) -> Values:
    """In force when the stage is at its start."""
    if spans is None:
        return stage.values
    return {name: at_spans(value, spans[:, :1]) for name, value in stage.values.items()}


@dataclass(frozen=True, slots=True)
class _Maps:
    """What each panel makes of a stage: kept x before + gained.

    Attributes:
        kept: fraction, (panels, patients, pieces), or (panels, patients, 1) for all pieces.
        gained: amount, (panels, patients, pieces).
        past: the integral of the loss up to each point, (panels, points, patients, pieces or 1).
        made: production at the points, or one for all of them.
    """

    kept: Tensor
    gained: Tensor
    past: Tensor
    made: Tensor


def _maps(panels: _Panels, stage: Stage, previous: Tensor) -> _Maps:
    moment = panels.moment(stage, previous)
    made, loss = stage.production(moment), stage.loss(moment)
    width = panels.width.unsqueeze(1)
    if stage.constant_loss and width.shape[-2] == 1:
        width = once(width)
    weights = _column(WEIGHTS, width)
    if stage.constant_loss:
        whole = outer(width, loss)
        past = whole * _column(NODES, width)
        rest = whole * _column(1 - NODES, width)
        total = whole[:, 0]
    else:
        loss = loss.expand_as(panels.concentration)
        past = width * _until(loss)
        total = panels.width * (loss * weights).sum(1)
        rest = total.unsqueeze(1) - past
    shares = (-rest).exp_() * (weights * width)
    parts = made.expand_as(panels.concentration).unbind(1)
    gained = parts[0] * shares[:, 0]
    for part, share in zip(parts[1:], shares.unbind(1)[1:], strict=True):
        gained.addcmul_(part, share)
    return _Maps((-total).exp(), gained, past, made)


def _column(values: object, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def _until(values: Tensor) -> Tensor:
    """Integrals of a panel's polynomial up to each point, for a width of 1."""
    parts = []
    for row in UNTIL:
        total = values[:, 0] * float(row[0])
        for place in range(1, POINTS):
            total = total.add(values[:, place], alpha=float(row[place]))
        parts.append(total)
    return torch.stack(parts, dim=1)


def _at_points(panels: _Panels, maps: _Maps, starts: Tensor) -> Tensor:
    """A stage at the points, from what it is where panels begin."""
    grown = (maps.made * maps.past.exp()).expand_as(panels.concentration)
    inside = starts.unsqueeze(1) + panels.width.unsqueeze(1) * _until(grown)
    return inside * (-maps.past).exp()


def _step(
    panels: _Panels, stage: Stage, previous: Tensor, starts: Tensor, *, further: bool
) -> tuple[Tensor, Tensor]:
    """A stage where panels end and, for the next stage, at their points."""
    maps = _maps(panels, stage, previous)
    points = _at_points(panels, maps, starts) if further else previous
    return maps.kept * starts + maps.gained, points


def _chained(
    panels: _Panels, stage: Stage, previous: Tensor, first: Tensor, *, further: bool
) -> tuple[Tensor, Tensor]:
    """A stage where panels begin, (panels, patients, pieces), and at their points."""
    maps = _maps(panels, stage, previous)
    kept, gained = torch.ones_like(maps.kept[0]), torch.zeros_like(maps.gained[0])
    before = []
    for one, more in zip(maps.kept, maps.gained, strict=True):
        before.append((kept, gained))
        kept, gained = one * kept, one * gained + more
    first = first.expand(gained.shape[0], 1)
    if kept.shape[1] < gained.shape[1]:
        begins = _followed(first, kept, gained)
    else:
        kept, gained = _scanned(kept, gained)
        begins = torch.cat([first, kept[:, :-1] * first + gained[:, :-1]], dim=1)
    starts = torch.stack([one * begins + more for one, more in before])
    points = _at_points(panels, maps, starts) if further else previous
    return starts, points


def _followed(first: Tensor, kept: Tensor, gained: Tensor) -> Tensor:
    """A stage where pieces begin that all keep the same fraction, (patients, 1)."""
    begins, fraction = [first[:, 0]], kept[:, 0]
    for more in gained.unbind(1)[:-1]:
        begins.append(torch.addcmul(more, fraction, begins[-1]))
    return torch.stack(begins).t()


def _scanned(kept: Tensor, gained: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of all pieces up to each one, (patients, pieces), in a logarithm of steps."""
    reach = 1
    while reach < kept.shape[1]:
        later = kept[:, reach:]
        gained = torch.cat(
            [gained[:, :reach], torch.addcmul(gained[:, reach:], later, gained[:, :-reach])], dim=1
        )
        kept = torch.cat([kept[:, :reach], later * kept[:, :-reach]], dim=1)
        reach *= 2
    return kept, gained
