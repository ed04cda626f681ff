"""How the store writes codes, and what patients' moments are reckoned with."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.events import BIRTH, DEATH
from fedtwin_client.store.pieces import NEVER, taken

DAY_US: Final = 86_400_000_000
_MEDS = {"MEDS//BIRTH": BIRTH, "MEDS//DEATH": DEATH}


def stored_codes(codes: tuple[str, ...]) -> list[str]:
    """A plan's codes as the store writes them."""
    return sorted({_MEDS.get(code, code) for code in codes})


def earliest(owner: NDArray[np.int32], time: NDArray[np.int64], patients: int) -> NDArray[np.int64]:
    """Each patient's first of some moments, (patients,); `NEVER` without any."""
    found = np.full(patients, NEVER, np.int64)
    np.minimum.at(found, owner, time)
    return found


def latest(owner: NDArray[np.int32], time: NDArray[np.int64], patients: int) -> NDArray[np.int64]:
    """Each patient's last of some moments, none of them `NEVER`; `NEVER` without any."""
    found = np.full(patients, -NEVER, np.int64)
    np.maximum.at(found, owner, time)
    found[found == -NEVER] = NEVER
    return found


def first_from(
    time: NDArray[np.int64],
    first: NDArray[np.int64],
    end: NDArray[np.int64],
    moment: NDArray[np.int64],
) -> NDArray[np.int64]:
    """In each of some spans the first row that is not before a moment.

    Args:
        time: (rows,) microseconds; in each span what has no time (`NEVER`), then rising.
        first: (spans,) where each begins.
        end: (spans,) behind its last row.
        moment: (asked, spans) microseconds.

    Returns:
        (asked, spans) rows; the end of the span where there is none.
    """
    found = np.broadcast_to(first, moment.shape)
    step = 1 << int((end - first).max(initial=0)).bit_length()
    while step := step // 2:
        last = found + (step - 1)
        there = taken(time, last)
        before = ((there < moment) | (there == NEVER)) & (last < end)
        found = found + before * step
    return found


def ages(birth: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Years from birth to the index date: whole ones, and the part of the year under way.

    Who was born on 29 February has the birthday on 28 February in other years.

    Args:
        birth: (patients,) microseconds since 1970, UTC.
        index: (patients,) the same.

    Returns:
        (patients,) years; NaN where either is `NEVER`.
    """
    known = (birth != NEVER) & (index != NEVER)
    born, now = (np.where(known, moment, 0) for moment in (birth, index))
    years = years_of(now) - years_of(born)
    this = _birthday(born, years)
    to_come = this > now
    other = _birthday(born, np.where(to_come, years - 1, years + 1))
    before, after = np.where(to_come, other, this), np.where(to_come, this, other)
    return np.where(known, years - to_come + (now - before) / (after - before), np.nan)


def years_of(time: NDArray[np.int64]) -> NDArray[np.int64]:
    """The calendar year of moments, UTC."""
    whole = time.view("datetime64[us]").astype("datetime64[Y]").astype(np.int64)
    return np.asarray(whole + 1970)


def _birthday(born: NDArray[np.int64], years: NDArray[np.int64]) -> NDArray[np.int64]:
    """The moment so many years after a birth."""
    moment = born.view("datetime64[us]")
    month = moment.astype("datetime64[M]")
    into = moment - month.astype("datetime64[us]")
    then = month + 12 * years
    length = (then + 1).astype("datetime64[D]") - then.astype("datetime64[D]")
    leap = into >= length.astype("timedelta64[us]")  # 29 February, where there is none
    into = np.where(leap, into - np.timedelta64(DAY_US, "us"), into)
    return np.asarray((then.astype("datetime64[us]") + into).astype(np.int64))
