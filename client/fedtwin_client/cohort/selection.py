"""Who takes part in a study, as of each patient's index date, and what became of them.

A patient is left out for the first reason that holds, in this order:

1. no index event; 2. died before the index date; 3. no birth date; 4. too young or too old;
5. lacks a required code; 6. has an excluding code; 7. the endpoint is not known.

Codes count for 5 and 6 only if they happened and were known by the index date. Only the endpoint
looks ahead: at (index date, index date + horizon]. Of index events, deaths, the end of the record
and the endpoint nothing counts that happened after now, or was not known by now.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import StoredUnits
from fedtwin_client.cohort.endpoints import VALUES, EndpointValues, outcomes_of, within_horizon
from fedtwin_client.cohort.times import DAY_US, ages, earliest, latest, stored_codes
from fedtwin_client.records.blocks import microseconds
from fedtwin_client.records.events import BIRTH, DEATH, SEX
from fedtwin_client.store.pieces import NEVER, PatientColumns, Piece
from fedtwin_protocol.errors import CohortError
from fedtwin_protocol.study import StudyPlan

_BIRTH, _DEATH, _SEX, _INDEX, _ENDPOINT, _REQUIRED, _EXCLUDING = (1 << bit for bit in range(7))
_SEXES: Final = {"male": 1.0, "female": 0.0}
_NO_ROWS: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """The patients of a study, in the order of their pseudonyms.

    Attributes:
        subject_ids: (patients,) int64.
        index: (patients,) index dates, microseconds since 1970, UTC.
        age: (patients,) years at the index date.
        sex: (patients,) 1 male, 0 female, NaN unknown, or if no feature asks for it.
        labels: (patients,) 1 where the endpoint happened, 0 where not; or its scaled value; or the
            number of events.
        days: (patients,) days from the index date to the event, or to where the patient is lost
            from sight; none unless the endpoint is a time to event.
        clipped: (patients,) whose outcome lies beyond the plan's bounds.
        exclusions: how many patients each reason left out, in the order of the reasons.
    """

    subject_ids: NDArray[np.int64]
    index: NDArray[np.int64]
    age: NDArray[np.float64]
    sex: NDArray[np.float64]
    labels: NDArray[np.float64]
    days: NDArray[np.float64] | None
    clipped: NDArray[np.bool_]
    exclusions: dict[str, int]

    def of(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Selected":
        """Some of the patients; the reasons stay those of all."""
        return replace(
            self,
            subject_ids=self.subject_ids[chosen],
            index=self.index[chosen],
            age=self.age[chosen],
            sex=self.sex[chosen],
            labels=self.labels[chosen],
            days=None if self.days is None else self.days[chosen],
            clipped=self.clipped[chosen],
        )


def select_patients(columns: PatientColumns, plan: StudyPlan, now: datetime) -> Selected:
    """Apply a plan's cohort and endpoint.

    Args:
        columns: the store.
        plan: the study.
        now: UTC without a zone; nothing after it counts.

    Raises:
        CohortError: the endpoint's values are in a unit that does not fit.
    """
    rules = Rules(plan, now, columns.units())
    found = [rules.select(piece) for piece in columns.pieces(rules.columns)]
    return together([selected for selected, _ in found])[0]


def together(parts: Sequence[Selected]) -> tuple[Selected, NDArray[np.int64]]:
    """Patients of one or several pieces in the order of their pseudonyms.

    Returns:
        them, and (patients,) the place of each among those of the pieces, one after another.
    """
    exclusions: Counter[str] = Counter()
    for part in parts:
        exclusions.update(part.exclusions)
    order = np.argsort(np.concatenate([part.subject_ids for part in parts]), kind="stable")
    days = [part.days for part in parts if part.days is not None]
    whole = Selected(
        subject_ids=np.concatenate([part.subject_ids for part in parts]),
        index=np.concatenate([part.index for part in parts]),
        age=np.concatenate([part.age for part in parts]),
        sex=np.concatenate([part.sex for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        days=np.concatenate(days) if days else None,
        clipped=np.concatenate([part.clipped for part in parts]),
        exclusions={reason: number for reason, number in exclusions.items() if number},
    )
    return whole.of(order), order


class Rules:
    """A plan's rules, applied to one piece of the store after another.

    Attributes:
        columns: which columns of the store they read.
    """

    def __init__(self, plan: StudyPlan, now: datetime, units: StoredUnits) -> None:
        """Understand the plan.

        Args:
            plan: the study.
            now: UTC without a zone.
            units: what the store says of its units.

        Raises:
            CohortError: the index date is to come, or the endpoint's values are in a unit that
                does not fit.
        """
        index = plan.cohort.index
        date = None if index.date is None else index.date.astimezone(UTC).replace(tzinfo=None)
        if index.date is not None and date is not None and date > now:
            raise CohortError(
                f"study {plan.study} asks for the index date {index.date:%Y-%m-%d}, "
                "which is to come"
            )
        self._plan, self._cohort, self._endpoint = plan, plan.cohort, plan.endpoint
        self._now = _us(now)
        self._date = None if date is None else _us(date)
        asks_value = plan.endpoint.kind in VALUES
        self._values = EndpointValues(plan.endpoint, units) if asks_value else None
        self._meant = self._codes()
        self._asks_sex = any(feature.kind == "sex" for feature in plan.features)
        self.columns: set[str] = {"text_value"} if self._asks_sex else set()
        if self._values is not None:
            self.columns |= self._values.columns

    def select(self, piece: Piece) -> tuple[Selected, NDArray[np.int64]]:
        """Those of a piece's patients who take part.

        Returns:
            them, and (selected,) the place of each among the piece's patients.
        """
        patients = len(piece.subjects)
        seen, last = _ends(piece, self._now)
        rows, meaning = self._rows(piece)
        counts = _known(piece, rows, self._now)

        def those(meant: int, *, known: bool = True) -> NDArray[np.int64]:
            holds = (meaning & meant) > 0
            return rows[holds & counts] if known else rows[holds]

        def moments(rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
            return piece.owner[rows], piece.time[rows]

        birth = earliest(*moments(those(_BIRTH, known=False)), patients)
        death = earliest(*moments(those(_DEATH)), patients)
        index = self._index(*moments(those(_INDEX)), patients)
        index = np.where(seen, index, NEVER)
        ended = np.minimum(death, last) if self._endpoint.kind == "time_to_event" else last
        gone = (ended == NEVER) | (index == NEVER)
        followed = np.where(gone, np.nan, (ended - np.where(gone, 0, index)) / DAY_US)
        late = within_horizon(self._endpoint, piece, those(_ENDPOINT), index)
        outcome = outcomes_of(self._endpoint, self._values, piece, late, index, followed)
        age = ages(birth, index)
        cohort = self._cohort
        rules = [
            ("no index event", index == NEVER),
            ("died before the index date", death < index),
            ("no birth date", birth == NEVER),
            (
                f"younger than {cohort.minimum_age_years:g} years",
                age < cohort.minimum_age_years - 1e-9,
            ),
            (
                f"older than {cohort.maximum_age_years:g} years",
                age > cohort.maximum_age_years + 1e-9,
            ),
            (
                "lacks a required code by the index date",
                ~_by_index(piece, those(_REQUIRED, known=False), index)
                & bool(cohort.require_codes),
            ),
            (
                "has an excluding code by the index date",
                _by_index(piece, those(_EXCLUDING, known=False), index),
            ),
            (outcome.why_unknown, outcome.unknown),
        ]
        keep, exclusions = _first_reason(rules, seen)
        everybody = Selected(
            subject_ids=piece.subjects,
            index=index,
            age=age,
            sex=self._sex(piece, those(_SEX, known=False)),
            labels=outcome.labels,
            days=outcome.days,
            clipped=outcome.clipped,
            exclusions=exclusions,
        )
        return everybody.of(keep), np.flatnonzero(keep)

    def _codes(self) -> dict[str, int]:
        """What each code that matters here means."""
        found = {BIRTH: _BIRTH}
        asked: list[tuple[int, Iterable[str]]] = [
            (_DEATH, (DEATH,)),
            (_SEX, (SEX,)),
            (_INDEX, stored_codes(self._cohort.index.codes)),
            (_ENDPOINT, stored_codes(self._endpoint.codes)),
            (_REQUIRED, stored_codes(self._cohort.require_codes)),
            (_EXCLUDING, stored_codes(self._cohort.exclude_codes)),
        ]
        for meant, codes in asked:
            for code in codes:
                found[code] = found.get(code, 0) | meant
        return found

    def _rows(self, piece: Piece) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The rows with a code that matters here, and what it means."""
        meaning = piece.of_code(self._meant, 0, np.uint8)
        rows = np.flatnonzero(meaning != 0)
        return rows, meaning[rows]

    def _index(
        self, owner: NDArray[np.int32], time: NDArray[np.int64], patients: int
    ) -> NDArray[np.int64]:
        if self._date is not None:
            return np.full(patients, self._date, np.int64)
        which = latest if self._cohort.index.which == "last" else earliest
        return which(owner, time, patients)

    def _sex(self, piece: Piece, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """What all records of a patient agree on."""
        found = np.full(len(piece.subjects), np.nan)
        if not self._asks_sex:
            return found
        said: dict[int, set[str]] = {}
        for owner, text in zip(piece.owner[rows].tolist(), piece.texts(rows), strict=True):
            if text is not None:
                said.setdefault(owner, set()).add(text)
        for owner, texts in said.items():
            found[owner] = _SEXES.get(texts.pop(), np.nan) if len(texts) == 1 else np.nan
        return found


def _known(piece: Piece, rows: Any, moment: int) -> NDArray[np.bool_]:
    """Which of some rows happened and were known by a moment."""
    return np.asarray((piece.time[rows] <= moment) & (piece.known[rows] <= moment))


def _ends(piece: Piece, now: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Who has any record, and when each one's ends, `NEVER` where nothing in it has a time.

    Args:
        piece: of the store.
        now: what is later, or was not known by then, does not count.
    """
    if not len(piece.starts):
        return np.zeros(0, np.bool_), _NO_ROWS
    ends = np.append(piece.starts[1:], piece.table.num_rows) - 1
    if _known(piece, ends, now).all():  # what happened last comes last
        return np.ones(len(ends), np.bool_), piece.time[ends]
    timeless = piece.time[piece.starts] == NEVER  # such rows come first
    known = _known(piece, slice(None), now)
    last = np.maximum.reduceat(np.where(known, piece.time, -NEVER), piece.starts)
    nothing = last == -NEVER
    return timeless | ~nothing, np.where(nothing, NEVER, last)


def _by_index(piece: Piece, rows: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(patients,) of whom one of some rows happened and was known by the index date."""
    found = np.zeros(len(index), np.bool_)
    until = index[piece.owner[rows]]
    usable = (piece.time[rows] <= until) & (piece.known[rows] <= until) & (until != NEVER)
    found[piece.owner[rows[usable]]] = True
    return found


def _first_reason(
    rules: list[tuple[str, NDArray[np.bool_]]], everybody: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    keep = everybody.copy()
    exclusions: Counter[str] = Counter()
    for reason, holds in rules:
        exclusions[reason] += int((keep & holds).sum())
        keep &= ~holds
    return keep, dict(exclusions)


def _us(moment: datetime) -> int:
    found = microseconds(moment.replace(tzinfo=UTC))
    assert found is not None
    return found
