"""De-identifying a DICOM header, as DICOM PS3.15 Annex E says, and more strictly.

The Basic Application Level Confidentiality Profile (Table E.1-1, in `imaging_tables/`) with the
option Retain Longitudinal Temporal Information with Full Dates: a twin needs the real times, and
the files do not leave the node. Where the table gives a choice (X/Z, Z/D, ...), an attribute that
may be empty is emptied, and one that may be absent is removed.

Beyond the profile: besides a short list of technical ones, every attribute that holds words goes
(names, descriptions, comments, labels), and so does every private or unknown one.
"""

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydicom import Dataset, config
from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence

from fedtwin_client.records.reading import UnusableError

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it may quote values
config.settings.reading_validation_mode = config.IGNORE
config.settings.writing_validation_mode = config.IGNORE

_TABLE: Final = Path(__file__).parent / "imaging_tables" / "confidentiality.tsv"
_WORDS: Final = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT"})
_TECHNICAL: Final = frozenset(
    {
        0x00080070,  # Manufacturer
        0x00080100,  # Code Value
        0x00080102,  # Coding Scheme Designator
        0x00081090,  # Manufacturer's Model Name
        0x00181210,  # Convolution Kernel
        0x00281054,  # Rescale Type
    }
)
_DUMMIES: Final = {"DA": "19000101", "DT": "19000101", "TM": "000000", "IS": "0", "DS": "0"}
_DEEPEST: Final = 16
_STANDARD_UID: Final = "1.2.840.10008."
_METHODS: Final = ("113100", "113106")
"""PS3.16 CID 7050: basic profile; longitudinal temporal information with full dates."""


def deidentified(dataset: Dataset, patient: str, new_uid: Callable[[str], str]) -> Dataset:
    """De-identify a dataset, in place.

    Args:
        dataset: of one instance.
        patient: what stands as Patient ID from now on.
        new_uid: gives the UID that stands for another; the same for the same.

    Returns:
        The dataset.

    Raises:
        UnusableError: its sequences are nested without end.
    """
    _clean(dataset, new_uid, 0)
    dataset.PatientName = ""
    dataset.PatientID = patient
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "UNMODIFIED"
    dataset.DeidentificationMethodCodeSequence = Sequence([_method(code) for code in _METHODS])
    return dataset


def _clean(dataset: Dataset, new_uid: Callable[[str], str], depth: int) -> None:
    if depth > _DEEPEST:
        raise UnusableError(f"sequences nested deeper than {_DEEPEST}")
    for tag in list(dataset.keys()):
        element = dataset[tag]
        action = _action(int(tag))
        if tag.is_private or not dictionary_has_tag(tag) or action == "X":
            del dataset[tag]
        elif action == "Z":
            element.value = None if element.VR != "SQ" else Sequence()
        elif action == "D":
            _replace(dataset, element)
        elif element.VR == "UI":
            element.value = _uids(element.value, new_uid)
        elif element.VR in _WORDS and int(tag) not in _TECHNICAL:
            del dataset[tag]
        elif element.VR == "SQ":
            for item in element.value:
                _clean(item, new_uid, depth + 1)


def _replace(dataset: Dataset, element: DataElement) -> None:
    """Put something without meaning in the place of what may be neither empty nor absent."""
    if element.VR in _DUMMIES:
        element.value = _DUMMIES[element.VR]
    elif element.VR in _WORDS or element.VR == "CS":
        element.value = "REMOVED"
    else:
        del dataset[element.tag]


def _uids(value: object, new_uid: Callable[[str], str]) -> object:
    if not value:
        return value
    if isinstance(value, str):
        return value if value.startswith(_STANDARD_UID) else new_uid(value)
    return [uid if uid.startswith(_STANDARD_UID) else new_uid(uid) for uid in map(str, value)]  # type: ignore[call-overload]


def _action(tag: int) -> str:
    """X, Z or D; nothing where the profile leaves an attribute, or replaces its UID."""
    exact, patterns = _profile()
    name = f"{tag:08X}"
    if name in exact:
        return exact[name]
    return next((action for pattern, action in patterns if pattern.match(name)), "")


@lru_cache(maxsize=1)
def _profile() -> tuple[dict[str, str], list[tuple[re.Pattern[str], str]]]:
    exact: dict[str, str] = {}
    patterns: list[tuple[re.Pattern[str], str]] = []
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        tag, action, kept = (*line.split("\t"), "")[:3]
        decided = "" if kept == "K" or "U" in action else _strictest(action)
        if "x" in tag:
            patterns.append((re.compile(tag.replace("x", "[0-9A-F]") + r"\Z"), decided))
        else:
            exact[tag] = decided
    return exact, patterns


def _strictest(action: str) -> str:
    choices = action.split("/")
    return next(choice for choice in ("Z", "X", "D") if choice in choices)


def _method(code: str) -> Dataset:
    item = Dataset()
    item.CodeValue = code
    item.CodingSchemeDesignator = "DCM"
    return item
