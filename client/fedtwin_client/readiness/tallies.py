"""The measures of one question of a report, gathered from one piece of the store after another."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.cohort.times import DAY_US
from fedtwin_client.readiness.counts import BINS
from fedtwin_client.readiness.months import Months
from fedtwin_client.readiness.recent import Recent, furthest
from fedtwin_client.readiness.reference import LEVELS, distance
from fedtwin_client.readiness.spread import Spread
from fedtwin_client.readiness.written import pairs_of, written_otherwise
from fedtwin_client.store.pieces import NEVER, Piece, taken
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.encoding import spell_category

DRIFT_VALUES: Final = 50
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The rows of one piece that are about one question, in the order of the store.

    Attributes:
        piece: they are of.
        rows: (rows,) in it.
        owner: (rows,) the patient's place.
        time: (rows,) microseconds, `NEVER` for none.
        delay: (some,) days from happening to being known, of rows of which both are known.
        value: (rows,) in the question's unit, where `there`.
        there: (rows,) whether there is a number that converts.
        number: (rows,) whether there is a number.
        reached: (rows,) whether it happened and was known by the patient's index date.
        index: (patients,) index dates, long ago for those who are not in the cohort.
    """

    piece: Piece
    rows: NDArray[np.int64]
    owner: NDArray[np.int32]
    time: Times
    delay: Floats
    value: Floats
    there: Mask
    number: Mask
    reached: Mask
    index: Times


@dataclass(kw_only=True, slots=True)
class Tally:
    """Measures so far; `of` gives them in the words of `counts.FeatureCounts`.

    Attributes:
        feature: one of those that ask the question.
        quantiles: of the reference; none: there is none.
        now: microseconds.
        held: how many numbers are kept as they come.
    """

    feature: Feature
    quantiles: Floats | None
    now: int
    held: int
    counts: Counter[str] = field(default_factory=Counter)
    last: int = -NEVER
    months: Months = field(default_factory=Months)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 2, np.int64))
    below: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(LEVELS) + 1, np.int64))
    up_to: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(LEVELS) + 1, np.int64))
    recent: Recent = field(default_factory=Recent)
    values: Spread = field(init=False)
    delays: Spread = field(init=False)
    otherwise: Callable[[str, str], bool] = field(init=False)

    def __post_init__(self) -> None:
        self.values, self.delays = Spread(self.held), Spread(self.held)
        self.otherwise = written_otherwise(self.feature.unit)

    def add(self, rows: Rows, rare: Mapping[str, int], newest: int | None) -> None:
        """Take the rows of a piece.

        Args:
            rows: of the piece.
            rare: how many of them have what few have, by name.
            newest: when the newest event so far happened, up to now; none: there is none.
        """
        if not len(rows.rows):
            return
        has, implausible = self._judged(rows)
        counts, kind = self.counts, self.feature.kind
        counts.update(rare)
        counts["rows"] += len(rows.rows)
        counts["subjects"] += _different(rows.owner)
        counts["values"] += _number(has)
        counts["implausible"] += _number(implausible)
        counts["duplicates"] += _duplicates(rows)
        usable = (has | np.bool_(kind == "presence")) & ~implausible
        seen = usable & rows.reached & self._in_window(rows)
        counts["covered"] += _different(taken(rows.owner, np.flatnonzero(seen)))
        self._moments(rows)
        if kind in {"number", "flag"}:
            counts["null"] += len(rows.rows) - _number(rows.number)
        if kind == "category":
            counts["null"] += len(rows.rows) - _number(has)
        if kind == "number":
            counts["unknown_unit"] += _number(rows.number & ~rows.there)
            counts["converted"] += self._converted(rows)
            self._numbers(rows, has, usable, plain=not implausible.any())
            if newest is not None:
                self.recent.add(rows.time, rows.value, usable & (rows.time <= self.now), newest)

    def of(self, newest: int | None) -> dict[str, Any]:
        """The measures.

        Args:
            newest: when the newest event of all up to now happened; none: there is none.
        """
        if not self.counts["rows"]:
            return {}
        found: dict[str, Any] = {
            name: self.counts[name]
            for name in ("rows", "subjects", "null", "unknown_unit", "converted", "values",
                         "implausible", "not_finite", "future", "before_birth", "after_death",
                         "duplicates", "comparator")
        }  # fmt: skip
        if self.last != -NEVER:
            found["newest"] = _EPOCH + self.last * _MICROSECOND
        delays = self.delays.quantiles([0.5, 0.95])
        if delays is not None:
            found |= dict(zip(("delay_p50_days", "delay_p95_days"), delays, strict=True))
        found["months"] = self.months.named()
        return found | (self._of_numbers(newest) if self.feature.kind == "number" else {})

    def _of_numbers(self, newest: int | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        quantiles = self.values.quantiles([0.01, 0.5, 0.99])
        if quantiles is not None:
            found |= dict(zip(("p01", "p50", "p99"), quantiles, strict=True))
        bins = self.histogram.tolist()
        found["histogram"] = tuple(bins) if any(bins) else ()
        below, up_to = np.cumsum(self.below).tolist(), np.cumsum(self.up_to).tolist()
        if self.quantiles is not None and up_to[-1]:
            found["ks"] = distance(below[:-1], up_to[:-1], up_to[-1])
        if newest is not None:
            late, early = self.recent.halves(newest)
            if len(late) or len(early):
                found["recent"] = (len(late), len(early))
            if min(len(late), len(early)) >= DRIFT_VALUES:
                found["drift"] = furthest(late, early)
        return found

    def _judged(self, rows: Rows) -> tuple[Mask, Mask]:
        """Which rows have a value, and which of these an implausible one."""
        nothing = np.zeros(len(rows.rows), np.bool_)
        if self.feature.kind == "presence":
            return nothing, nothing
        if self.feature.kind == "category":
            return self._answered(rows)
        if self.feature.kind == "flag":
            return rows.number, rows.number & (rows.value != 0.0) & (rows.value != 1.0)
        low, high = self.feature.plausible or (0.0, 1.0)
        return rows.there, rows.there & ~((rows.value >= low) & (rows.value <= high))

    def _answered(self, rows: Rows) -> tuple[Mask, Mask]:
        categories = self.feature.categories
        texts = rows.piece.table["text_value"].take(pa.array(rows.rows))
        spoken = np.asarray(texts.is_valid())
        allowed = pa.array(categories, texts.type)
        fits = np.asarray(pc.fill_null(pc.is_in(texts, allowed), False)) & spoken
        silent = np.flatnonzero(~spoken & rows.number)
        spelled = [spell_category(number) in categories for number in rows.value[silent].tolist()]
        fits[silent] = spelled
        has = spoken | rows.number
        return has, has & ~fits

    def _in_window(self, rows: Rows) -> Mask | np.bool_:
        """Which rows do not lie too long before the index date, of patients of the cohort."""
        if self.feature.window_days is None:
            return np.bool_(True)
        reach = self.feature.window_days * DAY_US
        first = np.where(rows.index < reach - NEVER, -NEVER, rows.index - reach)
        chosen = first[rows.index != -NEVER]
        if len(chosen) and (chosen == chosen[0]).all():
            return np.asarray(rows.time >= chosen[0])
        return np.asarray(rows.time >= taken(first, rows.owner))

    def _moments(self, rows: Rows) -> None:
        self.delays.add(rows.delay)
        past = rows.time <= self.now
        moments = rows.time if past.all() else rows.time[past]
        if len(moments):
            self.last = max(self.last, int(moments.max()))
            self.months.add(moments)

    def _converted(self, rows: Rows) -> int:
        """How many numbers that convert were written in another unit."""
        converts = rows.rows if rows.there.all() else rows.rows[rows.there]
        found = pairs_of(rows.piece, converts)
        return sum(n for source, stored, n in found if self.otherwise(source, stored))

    def _numbers(self, rows: Rows, has: Mask, usable: Mask, *, plain: bool) -> None:
        """The values; `plain` if none is implausible."""
        value = rows.value if has.all() else rows.value[has]
        finite = None if plain else np.isfinite(value)
        if finite is None or finite.all():
            self.values.add(value)
        else:
            self.counts["not_finite"] += len(value) - _number(finite)
            self.values.add(value[finite])
        low, high = self.feature.plausible or (0.0, 1.0)
        with np.errstate(invalid="ignore", over="ignore"):
            part = BINS * (value - low) / (high - low)
        place = 1 + np.fmin(np.fmax(part, 0.0), BINS - 1.0).astype(np.int64)
        if not plain:
            place[value < low] = 0
            place[~(value <= high)] = BINS + 1
        self.histogram += np.bincount(place, minlength=BINS + 2)
        if self.quantiles is not None:
            sound = rows.value[usable]
            levels = len(LEVELS) + 1
            # A value lies below the quantiles from one place on, and at or below from another.
            above = np.searchsorted(self.quantiles, sound, "right")
            strictly = np.searchsorted(self.quantiles, sound, "left")
            self.below += np.bincount(above, minlength=levels)
            self.up_to += np.bincount(strictly, minlength=levels)


def _number(mask: Mask) -> int:
    return int(np.count_nonzero(mask))


def _different(owners: NDArray[np.int32]) -> int:
    """How many different patients; each one's rows are neighbours."""
    return int(np.count_nonzero(owners[1:] != owners[:-1])) + 1 if len(owners) else 0


def _duplicates(rows: Rows) -> int:
    """Rows that say what another one of the patient at the same moment says.

    In the order of the store the events of one moment are neighbours; few have any.
    """
    same = np.zeros(len(rows.rows) + 1, np.bool_)
    same[1:-1] = (rows.owner[1:] == rows.owner[:-1]) & (rows.time[1:] == rows.time[:-1])
    together = np.flatnonzero(same[:-1] | same[1:])
    if not len(together):
        return 0
    group = np.cumsum(~same[:-1])[together]
    at = rows.rows[together]
    said: list[NDArray[Any]] = [group]
    said += [rows.piece.coded(name)[1][at] for name in ("code", "unit")]
    numbers, _ = rows.piece.numbers
    said.append(np.where(rows.number[together], numbers[at] + 0.0, 0.0).view(np.int64))
    said.append(rows.number[together])
    texts = pc.dictionary_encode(rows.piece.table["text_value"].take(pa.array(at)))
    said.append(np.asarray(pc.fill_null(texts.combine_chunks().indices, -1)))
    order = np.lexsort(said)
    again = np.ones(len(order) - 1, np.bool_)
    for column in said:
        again &= column[order[1:]] == column[order[:-1]]
    return _number(again)
