"""Counting: the measures of a readiness report, in two passes over the timelines.

The first takes the timelines as a whole and selects the cohort; the second takes the rows of every
feature, a piece of the store at a time. Features that ask the same question are counted once.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import StoredUnits, UnitConversion, UnitTable
from fedtwin_client.cohort.lookback import LookBack, Question
from fedtwin_client.cohort.selection import Rules, Selected, together
from fedtwin_client.cohort.times import earliest, stored_codes, years_of
from fedtwin_client.readiness.counts import CohortCounts, FeatureCounts, Report, YearCounts
from fedtwin_client.readiness.questions import conversion_of
from fedtwin_client.readiness.reference import Reference
from fedtwin_client.readiness.site import SiteTally
from fedtwin_client.readiness.tallies import Rows, Tally
from fedtwin_client.records.analytes import analyte
from fedtwin_client.records.blocks import microseconds
from fedtwin_client.records.events import BIRTH, DEATH
from fedtwin_client.store.pieces import NEVER, PatientColumns, Piece
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
    progress("patients")
    units = columns.units()
    site, selected, fault = _first_pass(columns, plan, now, units)
    progress("features")
    counting = _Counting(plan, units, microseconds(now) or 0, site, reference)
    for piece in columns.pieces(counting.columns):
        counting.add(piece, selected)
    counted = site.counts(timeline)
    return Report(
        study=plan.study,
        plan_hash=plan.hash,
        made=now,
        site=counted,
        cohort=None if selected is None else _cohort(plan, selected),
        cohort_fault=fault,
        features=tuple(
            counting.feature(feature, selected, counted.refused_units) for feature in plan.features
        ),
        reference=None if reference is None else reference.name,
    )


def _first_pass(
    columns: PatientColumns, plan: StudyPlan, now: datetime, units: StoredUnits
) -> tuple[SiteTally, Selected | None, str]:
    """The timelines as a whole, and the cohort, or why it cannot be built."""
    site = SiteTally(plan, microseconds(now) or 0)
    rules, fault = None, ""
    try:
        rules = Rules(plan, now.astimezone(UTC).replace(tzinfo=None), units)
    except CohortError as error:
        fault = str(error)
    parts = []
    for piece in columns.pieces(set() if rules is None else rules.columns):
        site.add(piece)
        if rules is not None:
            parts.append(rules.select(piece)[0])
    return site, None if rules is None else together(parts)[0], fault


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
        site: SiteTally,
        reference: Reference | None,
    ) -> None:
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
                newest=site.newest,
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

    def add(self, piece: Piece, selected: Selected | None) -> None:
        """Count a piece."""
        if not self._tallies:
            return
        found = self._look_back.every(piece)
        values, there = self._units.values(piece, found.rows, found.asked)
        present = piece.numbers[1]
        number = np.ones(len(there), np.bool_) if present is None else present[found.rows]
        time, known = piece.time[found.rows], piece.known[found.rows]
        birth, death = _lives(piece)
        index = _index(piece, selected)
        edges = np.searchsorted(found.question, np.arange(len(self._tallies) + 1))
        for place, tally in enumerate(self._tallies.values()):
            here = slice(edges[place], edges[place + 1])
            owner = found.patient[here]
            tally.add(
                Rows(
                    piece=piece,
                    rows=found.rows[here],
                    owner=owner,
                    time=time[here],
                    known=known[here],
                    value=values[here],
                    there=there[here],
                    number=number[here],
                    birth=birth[owner],
                    death=death[owner],
                    index=index[owner],
                )
            )

    def feature(
        self, feature: Feature, selected: Selected | None, refused: dict[str, int]
    ) -> FeatureCounts:
        """All measures of one feature of the contract."""
        counts: dict[str, Any] = {"name": feature.name, "kind": feature.kind, "unit": feature.unit}
        if feature.kind in _DEMOGRAPHIC:
            if selected is not None:
                known = np.isfinite(selected.age if feature.kind == "age" else selected.sex)
                counts["covered"] = int(known.sum())
            return FeatureCounts(**counts)
        tally = self._tallies[self._keys[feature.name]]
        counts |= tally.of()
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


def _lives(piece: Piece) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(patients,) births, long ago where they are not known, and deaths."""
    meant = piece.of_code({BIRTH: 1, DEATH: 2}, 0, np.uint8)
    found = []
    for which in (1, 2):
        rows = np.flatnonzero(meant == which)
        found.append(earliest(piece.owner[rows], piece.time[rows], len(piece.subjects)))
    birth, death = found
    birth[birth == NEVER] = -NEVER
    return birth, death


def _index(piece: Piece, selected: Selected | None) -> NDArray[np.int64]:
    """(patients,) index dates; long ago for those who are not in the cohort."""
    found = np.full(len(piece.subjects), -NEVER)
    if selected is not None and len(selected.subject_ids):
        place = np.searchsorted(selected.subject_ids, piece.subjects)
        place = np.minimum(place, len(selected.subject_ids) - 1)
        mine = selected.subject_ids[place] == piece.subjects
        found[mine] = selected.index[place[mine]]
    return found


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
