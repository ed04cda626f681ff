"""What few rows of a piece have: looked for in all of them at once, and put down to questions.

In most pieces a defect is nowhere, which one comparison of neighbours in memory says; only where it
is somewhere the rows of the questions are asked.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.lookback import Found
from fedtwin_client.cohort.times import earliest
from fedtwin_client.records.events import BIRTH, DEATH
from fedtwin_client.store.pieces import NEVER, Piece

Mask = NDArray[np.bool_]
Times = NDArray[np.int64]
_NO_ROWS: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lives:
    """Births and deaths of a piece's patients.

    Attributes:
        birth: (patients,) microseconds; long ago where it is not known.
        death: (patients,) the same, `NEVER` where it is not known.
    """

    birth: Times
    death: Times


def lives_of(piece: Piece) -> Lives:
    """Births and deaths of a piece's patients."""
    names, code = piece.coded("code")
    found = []
    for which in (BIRTH, DEATH):
        rows = np.flatnonzero(code == names.index(which)) if which in names else _NO_ROWS
        found.append(earliest(piece.owner[rows], piece.time[rows], len(piece.subjects)))
    birth, death = found
    birth[birth == NEVER] = -NEVER
    return Lives(birth=birth, death=death)


def rarities(
    piece: Piece, found: Found, questions: int, lives: Lives, now: int
) -> dict[str, list[int]]:
    """Rows in the future, before birth, after death and with a comparator.

    Args:
        piece: of the store.
        found: which of its rows are about which question.
        questions: how many there are.
        lives: of its patients.
        now: microseconds.

    Returns:
        by the name in `counts.FeatureCounts`, for each question the number of its rows.
    """
    rare = {
        "future": _after(piece, now),
        "before_birth": _before_birth(piece, lives.birth),
        "after_death": _after_death(piece, lives.death),
        "comparator": piece.has("comparator"),
    }
    return {name: _put_down(mask, found, questions) for name, mask in rare.items()}


def _after(piece: Piece, moment: int) -> Mask:
    mask = np.zeros(len(piece.time), np.bool_)
    for time in (piece.time, piece.known):
        if time.max(initial=-NEVER) > moment:
            mask |= (time > moment) & (time != NEVER)
    return mask


def _before_birth(piece: Piece, birth: Times) -> Mask:
    mask = np.zeros(len(piece.time), np.bool_)
    if len(piece.starts):
        early = np.minimum.reduceat(piece.time, piece.starts) < birth
        rows = np.flatnonzero(early[piece.owner]) if early.any() else _NO_ROWS
        mask[rows] = piece.time[rows] < birth[piece.owner[rows]]
    return mask


def _after_death(piece: Piece, death: Times) -> Mask:
    mask = np.zeros(len(piece.time), np.bool_)
    dead = death != NEVER
    if dead.any():
        rows = np.flatnonzero(dead[piece.owner])
        time = piece.time[rows]
        mask[rows] = (time != NEVER) & (time > death[piece.owner[rows]])
    return mask


def _put_down(mask: Mask, found: Found, questions: int) -> list[int]:
    if not mask.any():
        return [0] * questions
    asked = found.question[mask[found.rows]]
    numbers: list[int] = np.bincount(asked, minlength=questions).tolist()
    return numbers
