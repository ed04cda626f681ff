"""The raw values of a study's features, as of each patient's index date.

A value counts if it happened and was known by the index date and lies in the feature's window. A
number outside the plausible range is no value: it is counted, and not summarised. Of several
values the summary is taken in the order of time, available time and source (the order in which the
store keeps a patient's events), so that equal times never make the result depend on chance.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import StoredUnits, UnitTable, unit_conversions
from fedtwin_client.cohort.lookback import Chosen, Found, LookBack, Question
from fedtwin_client.cohort.selection import Selected
from fedtwin_client.cohort.times import stored_codes
from fedtwin_client.store.pieces import Piece, taken
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.encoding import spell_category

Floats = NDArray[np.float64]
_CELLS_AT_ONCE: Final = 2_000_000
"""Features of patients that are summarised together; it bounds the memory for features of few."""
_ASKED: Final = frozenset({"number", "flag", "presence", "category"})


@dataclass(frozen=True, kw_only=True, slots=True)
class RawFeatures:
    """Values before encoding.

    Attributes:
        columns: for each feature (patients,) values in its unit; NaN or none where missing.
        implausible: for each numeric feature, how many values lay outside the plausible range.
    """

    columns: dict[str, Any]
    implausible: dict[str, int]


class FeatureValues:
    """The features of one piece's patients after another's.

    Attributes:
        columns: which columns of the store are read for them.
    """

    def __init__(
        self, features: Sequence[Feature], units: StoredUnits, without: Collection[str] = ()
    ) -> None:
        """Understand what is asked.

        Args:
            features: of the plan.
            units: what the store says of its units.
            without: features that are not looked at, and missing for everybody.

        Raises:
            CohortError: a feature's values are in a unit that does not fit; it is named.
        """
        self._features, self._without = features, frozenset(without)
        looked_at = [one for one in features if one.name not in self._without]
        self._numbers = _Numbers([one for one in looked_at if one.kind != "category"], units)
        self._answers = _Answers([one for one in looked_at if one.kind == "category"])
        self.columns = self._numbers.columns | self._answers.columns
        self._parts: dict[str, list[Any]] = {feature.name: [] for feature in features}

    def add(self, piece: Piece, selected: Selected, places: NDArray[np.int64]) -> None:
        """Take the features of a piece's patients.

        Args:
            piece: the events.
            selected: the patients of the piece who take part.
            places: (selected,) of each among the piece's patients.
        """
        chosen = Chosen(places=places, index=selected.index)
        found = self._numbers.of(piece, chosen) | self._answers.of(piece, chosen)
        own = {"age": selected.age, "sex": selected.sex}
        for feature in self._features:
            values = found.get(feature.name)
            if values is None:
                absent = feature.name in self._without
                values = None if absent else own.get(feature.kind)
            if values is None:
                empty = None if feature.kind == "category" else np.nan
                kind = object if feature.kind == "category" else np.float64
                values = np.full(len(places), empty, kind)
            self._parts[feature.name].append(values)

    def whole(self, order: NDArray[np.int64]) -> RawFeatures:
        """All patients' features; what was gathered is handed over.

        Args:
            order: (patients,) the place of each among the pieces', one after another.
        """
        columns = {}
        for feature in self._features:
            parts = self._parts.pop(feature.name)
            columns[feature.name] = taken(np.concatenate(parts), order)
        counts = dict.fromkeys(columns, 0) | self._numbers.implausible
        return RawFeatures(columns=columns, implausible=counts)


class _Numbers:
    """Features that are numbers, or are made of whether there is an event."""

    def __init__(self, features: Iterable[Feature], units: StoredUnits) -> None:
        self._series = _series(features)
        self._look_back = LookBack([_question(alike[0]) for alike in self._series])
        self._presence = np.array([alike[0].kind == "presence" for alike in self._series], np.bool_)
        self._units = UnitTable(
            [
                _conversions(self._series[number][0], code, units)
                for number, code in self._look_back.pairs
            ]
        )
        ranges = [_range(alike[0]) for alike in self._series]
        self._low, self._high = np.array(ranges, np.float64).reshape(-1, 2).T
        self._summaries = {_summary(one) for alike in self._series for one in alike}
        self._outside = np.zeros(len(self._series), np.int64)
        read = bool(len(self._series)) and not self._presence.all()
        self.columns = self._units.columns if read else set()

    @property
    def implausible(self) -> dict[str, int]:
        """How many values of each feature lay outside its plausible range."""
        return {
            feature.name: int(count)
            for alike, count in zip(self._series, self._outside, strict=True)
            for feature in alike
        }

    def of(self, piece: Piece, chosen: Chosen) -> dict[str, Floats]:
        """The values of each feature, (chosen,)."""
        found = self._look_back.find(piece, chosen)
        values, there = self._values(piece, found)
        found, values = self._plausible(found, values, there)
        patients, columns = len(chosen.places), {}
        at_once = max(1, _CELLS_AT_ONCE // max(1, patients))
        for first in range(0, len(self._series), at_once):
            some = self._series[first : first + at_once]
            here = self._asked_of(found, first, len(some))
            group = (found.question[here] - first) * np.int64(patients) + found.patient[here]
            summed = summaries(values[here], group, len(some) * patients, self._summaries)
            for place, alike in enumerate(some):
                cells = slice(place * patients, (place + 1) * patients)
                for feature in alike:
                    column = summed[_summary(feature)][cells].copy()
                    if feature.counts or feature.kind == "presence":
                        column[np.isnan(column)] = 0.0
                    columns[feature.name] = column
        return columns

    def _plausible(
        self, found: Found, values: Floats, there: NDArray[np.bool_]
    ) -> tuple[Found, Floats]:
        """Without those outside the plausible range, which are counted, and those without any."""
        plausible = values >= taken(self._low, found.question)
        plausible &= values <= taken(self._high, found.question)
        good = plausible & there
        if good.all():
            return found, values
        refused = found.question[np.flatnonzero(there & ~plausible)]
        self._outside += np.bincount(refused, minlength=len(self._series))
        kept = np.flatnonzero(good)
        return found.of(kept), values[kept]

    def _asked_of(self, found: Found, first: int, questions: int) -> Any:
        """The events that some questions ask for."""
        if questions == len(self._series):
            return slice(None)
        return np.flatnonzero((found.question >= first) & (found.question < first + questions))

    def _values(self, piece: Piece, found: Found) -> tuple[Floats, NDArray[np.bool_]]:
        if not self.columns:
            return np.ones(len(found.rows)), np.ones(len(found.rows), np.bool_)
        values, there = self._units.values(piece, found.rows, found.asked)
        if self._presence.any():
            event = self._presence[found.question]
            values, there = np.where(event, 1.0, values), there | event
        return values, there


class _Answers:
    """Features that are one of several words."""

    def __init__(self, features: Iterable[Feature]) -> None:
        self._series = _series(features)
        self._look_back = LookBack([_question(alike[0]) for alike in self._series])
        self.columns = {"text_value", "numeric_value"} if self._series else set()

    def of(self, piece: Piece, chosen: Chosen) -> dict[str, NDArray[Any]]:
        """The answers of each feature, (chosen,)."""
        if not self._series:
            return {}
        found = self._look_back.find(piece, chosen).by_question()
        numbers, present = piece.numbers
        said = (
            np.ones(len(numbers), np.bool_)
            if present is None
            else piece.has("text_value") | present
        )
        found = found.of(np.flatnonzero(said[found.rows]))
        starts = found.groups
        ends = np.append(starts[1:], len(found.rows)) - 1 if len(starts) else starts
        edges = np.searchsorted(found.question[starts], np.arange(len(self._series) + 1))
        columns = {}
        for place, alike in enumerate(self._series):
            here = slice(edges[place], edges[place + 1])
            for feature in alike:
                rows = found.rows[(starts if _summary(feature) == "first" else ends)[here]]
                column = np.full(len(chosen.places), None, object)
                column[found.patient[starts[here]]] = [
                    spell_category(number) if text is None else text
                    for text, number in zip(piece.texts(rows), numbers[rows].tolist(), strict=True)
                ]
                columns[feature.name] = column
        return columns


def summaries(
    values: Floats, group: NDArray[np.int64], groups: int, asked: Collection[str]
) -> dict[str, Floats]:
    """Summaries of groups of values.

    The mean is that of exact sums but for the last digit: what the sum lost in rounding is found
    by summing what the values differ from it, and added.

    Args:
        values: (values,) finite or infinite, those of a group in order.
        group: (values,) the number of each one's group, from 0.
        groups: how many there are.
        asked: which.

    Returns:
        for each (groups,); NaN where a group has no values.
    """
    counts = np.bincount(group, minlength=groups)
    nobody = counts == 0
    found: dict[str, Floats] = {}
    if "count" in asked:
        found["count"] = counts.astype(np.float64)
    for summary, outer in (("first", np.minimum), ("last", np.maximum)):
        if summary in asked:
            place = np.full(groups, len(values) if summary == "first" else -1)
            outer.at(place, group, np.arange(len(values)))
            found[summary] = np.append(values, np.nan)[place]
    for summary, outer in (("min", np.minimum), ("max", np.maximum)):
        if summary in asked:
            found[summary] = np.full(groups, np.inf if summary == "min" else -np.inf)
            outer.at(found[summary], group, values)
    if "mean" in asked:
        with np.errstate(all="ignore"):
            mean = np.bincount(group, values, groups) / counts
            rest = np.bincount(group, values - taken(mean, group), groups) / counts
        found["mean"] = np.where(np.isfinite(rest), mean + rest, mean)
    for each in found.values():
        each[nobody] = np.nan
    return found


def _series(features: Iterable[Feature]) -> list[list[Feature]]:
    """Features that ask for the same values and differ only in how these are summarised."""
    found: dict[tuple[Any, ...], list[Feature]] = {}
    for feature in features:
        if feature.kind in _ASKED:
            codes = tuple(stored_codes(feature.codes))
            asked = (feature.kind, codes, feature.unit, feature.plausible, feature.window_days)
            found.setdefault(asked, []).append(feature)
    return list(found.values())


def _question(feature: Feature) -> Question:
    return Question(codes=stored_codes(feature.codes), window_days=feature.window_days)


def _conversions(feature: Feature, code: str, units: StoredUnits) -> Any:
    """How a feature's numbers of one code are converted; none: they are taken as they are."""
    if feature.kind != "number":
        return None
    return unit_conversions(units, [code], feature.unit, f"feature '{feature.name}'")


def _range(feature: Feature) -> tuple[float, float]:
    if feature.kind != "number":
        return -np.inf, np.inf
    assert feature.plausible is not None
    return feature.plausible


def _summary(feature: Feature) -> str:
    """Words have no mean, and presence needs one event only, unless all are counted."""
    if feature.kind == "category":
        return "first" if feature.summary == "first" else "last"
    return feature.summary if feature.counts or feature.kind != "presence" else "last"
