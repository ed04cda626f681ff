"""Counting: the measures of a readiness report, in one pass over the timelines.

A piece of the store at a time: what it adds to the whole, who of its patients is in the cohort, and
then the rows of every feature. Features that ask the same question are counted once.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import StoredUnits, UnitConversion, UnitTable
from fedtwin_client.cohort.lookback import Found, LookBack, Question
from fedtwin_client.cohort.selection import Rules, Selected, together
from fedtwin_client.cohort.times import DAY_US, stored_codes, years_of
from fedtwin_client.readiness.counts import CohortCounts, FeatureCounts, Report, YearCounts
from fedtwin_client.readiness.questions import conversion_of
from fedtwin_client.readiness.rarities import lives_of, rarities
from fedtwin_client.readiness.reference import Reference
from fedtwin_client.readiness.site import SiteTally
from fedtwin_client.readiness.tallies import Rows, Tally
from fedtwin_client.records.blocks import microseconds
from fedtwin_client.records.codes.analytes import analyte
from fedtwin_client.store.pieces import NEVER, PatientColumns, Piece, taken
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.errors import CohortError
from fedtwin_protocol.study import StudyPlan

_NUMBERS_HELD: Final = 40_000_000
"""Of all questions together; with 8 bytes each."""
_COLUMNS: Final = ("numeric_value", "text_value", "unit", "src_unit", "comparator")
_DEMOGRAPHIC: Final = frozenset({"age", "sex"})

Progress = Callable[[str], None]


def measure(
    timeline: Timeline,
    plan: StudyPlan,
    now: datetime,
    reference: Reference | None = None,
    progress: Progress = lambda _: None,
) -> Report:
    """Count everything that a readiness report holds.

    Args:
        timeline: the store.
        plan: the study.
        now: aware.
        reference: what values are compared with.
        progress: is told what is counted next.

    Raises:
        RecordError: the records cannot be read.
    """
    columns = PatientColumns(timeline=timeline)
    progress("units")
    units = columns.units()
    moment = microseconds(now) or 0
    site = SiteTally(plan, moment)
    rules, fault = _rules(plan, now, units)
    counting = _Counting(plan, units, moment, reference)
    progress("patients and features")
    parts = []
    for piece in columns.pieces(counting.columns | (set() if rules is None else rules.columns)):
        site.add(piece)
        index = np.full(len(piece.subjects), -NEVER)
        if rules is not None:
            part, places = rules.select(piece)
            parts.append(part)
            index[places] = part.index
        counting.add(piece, index, site.newest)
    selected = together(parts)[0] if parts else None
    counted = site.counts(timeline)
    return Report(
        study=plan.study,
        plan_hash=plan.hash,
        made=now,
        site=counted,
        cohort=None if selected is None else _cohort(plan, selected),
        cohort_fault=fault,
        features=tuple(
            counting.feature(feature, selected, site.newest, counted.refused_units)
            for feature in plan.features
        ),
        reference=None if reference is None else reference.name,
    )


def _rules(plan: StudyPlan, now: datetime, units: StoredUnits) -> tuple[Rules | None, str]:
    """The cohort's rules, or why it cannot be built."""
    try:
        return Rules(plan, now.astimezone(UTC).replace(tzinfo=None), units), ""
    except CohortError as error:
        return None, str(error)


class _Counting:
    """The questions of a plan's features, counted in one piece of the store after another.

    Attributes:
        columns: which columns of the store are read.
    """

    def __init__(
        self,
        plan: StudyPlan,
        units: StoredUnits,
        now: int,
        reference: Reference | None,
    ) -> None:
        self._now = now
        self._tallies: dict[tuple[Any, ...], Tally] = {}
        asked = [one for one in plan.features if one.kind not in _DEMOGRAPHIC]
        quantiles = {} if reference is None else reference.quantiles
        held = _NUMBERS_HELD // (2 * max(1, len(asked)))
        for feature in asked:
            given = quantiles.get(feature.name) or None
            tally = Tally(
                feature=feature,
                quantiles=None if given is None else np.array(given),
                now=now,
                held=held,
            )
            self._tallies.setdefault(_key(feature, given), tally)
        self._keys = {feature.name: _key(feature, quantiles.get(feature.name) or None)
                      for feature in asked}  # fmt: skip
        features = [tally.feature for tally in self._tallies.values()]
        self._look_back = LookBack(
            [Question(codes=stored_codes(one.codes), window_days=None) for one in features]
        )
        self._units = UnitTable(
            [_conversions(features[n], code, units) for n, code in self._look_back.pairs],
            all_fit=False,
        )
        self.columns = set(_COLUMNS) if features else set()

    def add(self, piece: Piece, index: NDArray[np.int64], newest: int | None) -> None:
        """Count a piece.

        Args:
            piece: of the store.
            index: (patients,) index dates; long ago for those who are not in the cohort.
            newest: when the newest event so far happened, up to now; none: there is none.
        """
        if not self._tallies:
            return
        found = self._look_back.every(piece)
        rare = rarities(piece, found, len(self._tallies), lives_of(piece), self._now)
        places = np.arange(len(self._tallies) + 1, dtype=found.question.dtype)
        edges = np.searchsorted(found.question, places)
        until = np.repeat(index, np.diff(piece.starts, append=piece.table.num_rows))
        reached = (piece.time <= until) & (piece.known <= until)
        for place, tally in enumerate(self._tallies.values()):
            here = slice(edges[place], edges[place + 1])
            rows = self._rows(piece, found, here, (index, reached))
            tally.add(rows, {name: each[place] for name, each in rare.items()}, newest)

    def _rows(
        self,
        piece: Piece,
        found: Found,
        here: slice,
        by_index: tuple[NDArray[np.int64], NDArray[np.bool_]],
    ) -> Rows:
        """The rows of one question, few enough to stay in the processor's own memory.

        Args:
            piece: of the store.
            found: its rows by question.
            here: those of the question.
            by_index: (patients,) index dates, and (rows of the piece,) what was there by then.
        """
        rows, owner = found.rows[here], found.patient[here]
        time, known = taken(piece.time, rows), taken(piece.known, rows)
        value, there = self._units.values(piece, rows, found.asked[here])
        present = piece.numbers[1]
        wait = known - time
        if not piece.timed:
            wait = wait[(time != NEVER) & (known != NEVER)]
        return Rows(
            piece=piece,
            rows=rows,
            owner=owner,
            time=time,
            delay=wait / DAY_US,
            value=value,
            there=there,
            number=np.ones(len(rows), np.bool_) if present is None else taken(present, rows),
            reached=taken(by_index[1], rows),
            index=by_index[0],
        )

    def feature(
        self,
        feature: Feature,
        selected: Selected | None,
        newest: int | None,
        refused: dict[str, int],
    ) -> FeatureCounts:
        """All measures of one feature of the contract.

        Args:
            feature: of the plan.
            selected: the cohort; none: it cannot be built.
            newest: when the newest event of all up to now happened; none: there is none.
            refused: by analyte, numbers that were put aside because of their unit.
        """
        counts: dict[str, Any] = {"name": feature.name, "kind": feature.kind, "unit": feature.unit}
        if feature.kind in _DEMOGRAPHIC:
            if selected is not None:
                known = np.isfinite(selected.age if feature.kind == "age" else selected.sex)
                counts["covered"] = int(known.sum())
            return FeatureCounts(**counts)
        tally = self._tallies[self._keys[feature.name]]
        counts |= tally.of(newest)
        if selected is not None:
            counts["covered"] = tally.counts["covered"]
        if feature.kind == "number":
            names = {found.name for code in feature.codes if (found := analyte(code))}
            counts["refused_unit"] = sum(refused.get(name, 0) for name in names)
        return FeatureCounts(**counts)


def _key(feature: Feature, quantiles: Sequence[float] | None) -> tuple[Any, ...]:
    """The same for features of which everything that is counted is the same."""
    codes = tuple(stored_codes(feature.codes))
    asked = (feature.kind, codes, feature.unit, feature.plausible, feature.window_days)
    return (*asked, feature.categories, None if quantiles is None else tuple(quantiles))


def _conversions(feature: Feature, code: str, units: StoredUnits) -> list[UnitConversion] | None:
    """Of the units that convert; none: numbers are taken as they are."""
    if feature.kind != "number":
        return None
    found = [conversion_of(code, unit, feature.unit) for unit, _ in units.get(code, ())]
    return [one for one in found if one is not None]


def _cohort(plan: StudyPlan, selected: Selected) -> CohortCounts:
    years = years_of(selected.index)
    counted = plan.endpoint.kind != "value"
    labels = selected.labels

    def events(here: Any) -> int | None:
        return int(labels[here].sum()) if counted else None

    everybody = np.ones(len(labels), np.bool_)
    return CohortCounts(
        patients=len(labels),
        events=events(everybody),
        mean=float(labels.mean()) if len(labels) else None,
        exclusions=selected.exclusions,
        years=tuple(
            YearCounts(year=year, patients=int((years == year).sum()), events=events(years == year))
            for year in sorted(set(years.tolist()))
        ),
    )
