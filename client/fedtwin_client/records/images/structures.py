"""Structures of label maps: which code a label stands for, and how large the structure is.

| code | holds |
|---|---|
| `SNOMED//10200004/volume` | `numeric_value`: the structure's volume in `mm3` |
| `SNOMED//64033007:272741003=7771000/volume` | the left one of two: the code with its laterality |
| `TOTALSEGMENTATOR//lung_left/volume` | a class without a SNOMED CT code |

The expressions are SNOMED CT's compositional grammar: 272741003 is laterality, 363698007 finding
site, 106233006 another modifier of place.
"""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fedtwin_client.records.events import Event
from fedtwin_client.records.reading import Times
from fedtwin_protocol.errors import RecordError

TABLES: Final = Path(__file__).parent / "imaging_tables"
BUILT_IN: Final = ("totalsegmentator", "totalsegmentator-mr")
LATERALITY: Final = "272741003"
FINDING_SITE: Final = "363698007"
OTHER_MODIFIER: Final = "106233006"
_COLUMNS: Final = ("label", "name", "code")
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,30}//[A-Za-z0-9_.:=,()\-]{1,120}\Z")
_LARGEST_LABEL: Final = 65_535


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """One structure of a table.

    Attributes:
        name: as the table calls it.
        code: `<VOCABULARY>//<code>`, without `/volume`.
    """

    name: str
    code: str


def read_structures(named: str) -> dict[int, Structure]:
    """A table of labels: a built-in one, or a CSV file with the columns label, name and code.

    Raises:
        RecordError: it cannot be read, or a line is wrong.
    """
    path = TABLES / f"{named}.csv" if named in BUILT_IN else Path(named)
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        rows = list(csv.DictReader(io.StringIO("\n".join(lines)), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(
            f"cannot read the table of labels {named}: {error}; give {' or '.join(BUILT_IN)}, or "
            "a CSV file with the columns label,name,code"
        ) from error
    found: dict[int, Structure] = {}
    for number, row in enumerate(rows, start=1):
        cells = {name: str(row.get(name) or "").strip() for name in _COLUMNS}
        label = int(cells["label"]) if cells["label"].isdecimal() else 0
        if not 0 < label <= _LARGEST_LABEL or not _CODE.match(cells["code"]):
            raise RecordError(
                f"expected a label from 1 on, a name and a code such as SNOMED//10200004 in row "
                f"{number} of {named}"
            )
        if label in found:
            raise RecordError(f"row {number} of {named} names label {label} for the second time")
        found[label] = Structure(name=cells["name"], code=cells["code"])
    if not found:
        raise RecordError(f"found no label in {named}: expected the columns label,name,code")
    return found


def structure_named(name: str) -> Structure | None:
    """A structure by its name in one of the built-in tables."""
    for table in BUILT_IN:
        for structure in read_structures(table).values():
            if structure.name == name:
                return structure
    return None


def composed(kind: str, modifier: str, region: str, region_modifier: str) -> str:
    """A SNOMED CT expression of a segment's codes (any but the first may be empty)."""
    parts = []
    if modifier:
        parts.append(f"{_modifies(modifier)}={modifier}")
    if region:
        inner = (
            f"{region}:{_modifies(region_modifier)}={region_modifier}" if region_modifier else ""
        )
        parts.append(f"{FINDING_SITE}={f'({inner})' if inner else region}")
    return f"{kind}:{','.join(parts)}" if parts else kind


def counts(labels: np.ndarray) -> Mapping[int, int]:
    """How many voxels each label has, without 0.

    Args:
        labels: (slices, rows, columns), whole numbers from 0 on.
    """
    found = np.bincount(labels.ravel())
    return {int(label): int(found[label]) for label in np.flatnonzero(found) if label}


def volume_event(
    origin: str, part: int, subject: int, times: Times, code: str, volume_mm3: float
) -> Event:
    """The event of one structure's size."""
    return Event(
        subject_id=subject,
        time=times.time,
        available_time=times.available_time,
        code=f"{code}/volume",
        numeric_value=volume_mm3,
        unit="mm3",
        src_unit="mm3",
        source=f"{origin}#{part}",
    )


def _modifies(code: str) -> str:
    return LATERALITY if code in {"7771000", "24028007", "51440002"} else OTHER_MODIFIER
