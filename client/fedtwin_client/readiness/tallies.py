"""The measures of one question of a report, gathered from one piece of the store after another."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.cohort.times import DAY_US
from fedtwin_client.readiness.counts import BINS
from fedtwin_client.readiness.reference import LEVELS, distance
from fedtwin_client.readiness.spread import Spread
from fedtwin_client.records.units import normal_unit
from fedtwin_client.store.pieces import NEVER, Piece
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.encoding import spell_category

DRIFT_DAYS: Final = 30
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
        known: (rows,) the same.
        value: (rows,) in the question's unit, where `there`.
        there: (rows,) whether there is a number that converts.
        number: (rows,) whether there is a number.
        birth: (rows,) the patient's, long ago where it is not known.
        death: (rows,) the patient's, `NEVER` where it is not known.
        index: (rows,) the patient's index date, long ago for those who are not in the cohort.
    """

    piece: Piece
    rows: NDArray[np.int64]
    owner: NDArray[np.int32]
    time: Times
    known: Times
    value: Floats
    there: Mask
    number: Mask
    birth: Times
    death: Times
    index: Times


@dataclass(kw_only=True, slots=True)
class Tally:
    """Measures so far; `of` gives them in the words of `counts.FeatureCounts`.

    Attributes:
        feature: one of those that ask the question.
        quantiles: of the reference; none: there is none.
        now: microseconds.
        newest: of all events up to now, microseconds; none: there is none.
        held: how many numbers are kept as they come.
    """

    feature: Feature
    quantiles: Floats | None
    now: int
    newest: int | None
    held: int
    counts: Counter[str] = field(default_factory=Counter)
    last: int = -NEVER
    days: Counter[int] = field(default_factory=Counter)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 2, np.int64))
    below: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(LEVELS) + 1, np.int64))
    up_to: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(LEVELS) + 1, np.int64))
    late: list[Floats] = field(default_factory=list)
    early: list[Floats] = field(default_factory=list)
    values: Spread = field(init=False)
    delays: Spread = field(init=False)

    def __post_init__(self) -> None:
        self.values, self.delays = Spread(self.held), Spread(self.held)

    def add(self, rows: Rows) -> None:
        """Take the rows of a piece."""
        if not len(rows.rows):
            return
        has, implausible = self._judged(rows)
        counts, kind = self.counts, self.feature.kind
        counts["rows"] += len(rows.rows)
        counts["subjects"] += _different(rows.owner)
        counts["values"] += _number(has)
        counts["implausible"] += _number(implausible)
        counts["comparator"] += _number(rows.piece.has("comparator")[rows.rows])
        counts["duplicates"] += _duplicates(rows)
        usable = (has | np.bool_(kind == "presence")) & ~implausible
        reach = NEVER if self.feature.window_days is None else self.feature.window_days * DAY_US
        seen = usable & (rows.time <= rows.index) & (rows.known <= rows.index)
        seen &= rows.time >= np.where(rows.index < reach - NEVER, -NEVER, rows.index - reach)
        counts["covered"] += _different(rows.owner[np.flatnonzero(seen)])
        self._moments(rows)
        if kind in {"number", "flag"}:
            counts["null"] += len(rows.rows) - _number(rows.number)
        if kind == "category":
            counts["null"] += len(rows.rows) - _number(has)
        if kind == "number":
            counts["unknown_unit"] += _number(rows.number & ~rows.there)
            counts["converted"] += self._converted(rows)
            self._numbers(rows, has, usable)

    def of(self) -> dict[str, Any]:
        """The measures."""
        if not self.counts["rows"]:
            return {}
        found: dict[str, Any] = {
            name: self.counts[name]
            for name in ("rows", "subjects", "null", "unknown_unit", "converted", "values",
                         "implausible", "future", "before_birth", "after_death", "duplicates",
                         "comparator")
        }  # fmt: skip
        if self.last != -NEVER:
            found["newest"] = _EPOCH + self.last * _MICROSECOND
        delays = self.delays.quantiles([0.5, 0.95])
        if delays is not None:
            found |= dict(zip(("delay_p50_days", "delay_p95_days"), delays, strict=True))
        months: Counter[str] = Counter()
        for day, number in self.days.items():
            months[f"{_EPOCH + timedelta(days=day):%Y-%m}"] += number
        found["months"] = tuple(sorted(months.items()))
        return found | (self._of_numbers() if self.feature.kind == "number" else {})

    def _of_numbers(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        quantiles = self.values.quantiles([0.01, 0.5, 0.99])
        if quantiles is not None:
            found |= dict(zip(("p01", "p50", "p99"), quantiles, strict=True))
        bins = self.histogram.tolist()
        found["histogram"] = tuple(bins) if any(bins) else ()
        below, up_to = np.cumsum(self.below).tolist(), np.cumsum(self.up_to).tolist()
        if self.quantiles is not None and up_to[-1]:
            found["ks"] = distance(below[:-1], up_to[:-1], up_to[-1])
        late, early = (np.concatenate([np.zeros(0), *part]) for part in (self.late, self.early))
        if len(late) or len(early):
            found["recent"] = (len(late), len(early))
            if min(len(late), len(early)) >= DRIFT_VALUES:
                found["drift"] = _furthest(late, early)
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

    def _moments(self, rows: Rows) -> None:
        counts, time, known = self.counts, rows.time, rows.known
        timed, told = time != NEVER, known != NEVER
        past = time <= self.now
        future = (timed & ~past) | (told & (known > self.now))
        counts["future"] += _number(future)
        counts["before_birth"] += _number(time < rows.birth)
        counts["after_death"] += _number(timed & (time > rows.death))
        both = timed & told
        self.delays.add(
            (known - time)[both] / DAY_US if not both.all() else (known - time) / DAY_US
        )
        moments = time if past.all() else time[past]
        if len(moments):
            self.last = max(self.last, int(moments.max()))
            day = moments // DAY_US
            first = int(day.min())
            for number, count in enumerate(np.bincount(day - first).tolist(), first):
                if count:
                    self.days[number] += count

    def _converted(self, rows: Rows) -> int:
        """How many numbers that convert were written in another unit."""
        wanted = normal_unit(self.feature.unit) or self.feature.unit
        units, unit = rows.piece.coded("unit")
        sources, source = rows.piece.coded("src_unit")
        held = [(normal_unit(one) or one) if one else "1" for one in units]
        other = np.array(
            [
                [((normal_unit(one) or one) if one else own) != wanted for own in held]
                for one in sources
            ]
        )
        if not other.any():
            return 0
        return _number(other[source[rows.rows], unit[rows.rows]] & rows.there)

    def _numbers(self, rows: Rows, has: Mask, usable: Mask) -> None:
        value = rows.value if has.all() else rows.value[has]
        self.values.add(value)
        low, high = self.feature.plausible or (0.0, 1.0)
        with np.errstate(invalid="ignore", over="ignore"):
            place = np.floor(BINS * (value - low) / (high - low))
            place = 1 + np.clip(np.nan_to_num(place, nan=0.0), 0, BINS - 1)
        place[value < low] = 0
        place[~(value <= high)] = BINS + 1
        self.histogram += np.bincount(place.astype(np.int64), minlength=BINS + 2)
        if self.quantiles is not None:
            sound = rows.value[usable]
            levels = len(LEVELS) + 1
            # A value lies below the quantiles from one place on, and at or below from another.
            above = np.searchsorted(self.quantiles, sound, "right")
            strictly = np.searchsorted(self.quantiles, sound, "left")
            self.below += np.bincount(above, minlength=levels)
            self.up_to += np.bincount(strictly, minlength=levels)
        if self.newest is not None:
            span = DRIFT_DAYS * DAY_US
            recent = usable & (rows.time > self.newest - 2 * span) & (rows.time <= self.newest)
            late = rows.time > self.newest - span
            self.late.append(rows.value[recent & late])
            self.early.append(rows.value[recent & ~late])


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


def _furthest(late: Floats, early: Floats) -> float:
    """The Kolmogorov-Smirnov distance of two samples."""
    steps = np.unique(np.concatenate([late, early]))
    parts = [np.searchsorted(np.sort(one), steps, "right") / len(one) for one in (late, early)]
    return float(np.abs(parts[0] - parts[1]).max())
