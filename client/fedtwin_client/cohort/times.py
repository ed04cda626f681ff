"""How the store writes codes, and what patients' moments are reckoned with."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.events import BIRTH, DEATH
from fedtwin_client.store.pieces import NEVER

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
    years -= _birthday(born, years) > now
    before, after = _birthday(born, years), _birthday(born, years + 1)
    return np.where(known, years + (now - before) / (after - before), np.nan)


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
