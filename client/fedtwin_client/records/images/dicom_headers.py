"""De-identifying a DICOM header, as DICOM PS3.15 Annex E says, and more strictly.

The Basic Application Level Confidentiality Profile (Table E.1-1, in `imaging_tables/`) with the
option Retain Longitudinal Temporal Information with Full Dates: a twin needs the real times, and
the files do not leave the node. Where the table gives a choice (X/Z, Z/D, ...), an attribute that
may be empty is emptied, and one that may be absent is removed.

Beyond the profile: besides a short list of technical ones, every attribute that holds words goes
(names, descriptions, comments, labels), and so does every private or unknown one, bytes of anything
but pixels, and what is no number where one belongs. Where one of the few words left repeats a
person's name or number that the file itself holds, it is replaced.
"""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydicom import Dataset, config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from fedtwin_client.records.images.dicom_series import BODY_PARTS, MODALITIES
from fedtwin_client.records.reading import UnusableError

# It may quote values.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"pydicom\.")
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
_CODED: Final = frozenset({"CS", "LO", "SH"})
_NUMBERS: Final = frozenset({"AS", "DA", "DS", "DT", "IS", "TM"})
_NUMBER: Final = re.compile(r"[-+0-9.:eE WMYD]*\Z")
_CHARACTER_SET: Final = 0x00080005
_BYTES: Final = frozenset({"OB", "OB or OW", "OW"})
_OF_PIXELS: Final = frozenset({0x0028, 0x7FE0})
"""Groups whose bytes are pixels, or what they are shown by."""
_NUMBERS_OF_PEOPLE: Final = (
    *("PatientID", "OtherPatientIDs", "AdmissionID", "AccessionNumber", "ServiceEpisodeID"),
)
_WORD: Final = re.compile(r"[^\W\d_]{3,}|\d{4,}")
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
    _clean(dataset, new_uid, frozenset(_own_words(dataset, 0)) - BODY_PARTS - MODALITIES, 0)
    dataset.PatientName = ""
    dataset.PatientID = patient
    dataset.PatientIdentityRemoved = "YES"
    dataset.LongitudinalTemporalInformationModified = "UNMODIFIED"
    dataset.DeidentificationMethodCodeSequence = Sequence([_method(code) for code in _METHODS])
    return dataset


def _own_words(dataset: Dataset, depth: int) -> Iterator[str]:
    """Words of people's names and numbers that a file holds, in capitals."""
    if depth > _DEEPEST:
        raise UnusableError(f"sequences nested deeper than {_DEEPEST}")
    for tag in list(dataset.keys()):
        if dictionary_has_tag(tag) and dictionary_VR(tag) in {"PN", "SQ"}:
            element = dataset[tag]
            if element.VR == "PN":
                yield from _WORD.findall(str(element.value).upper())
            elif element.VR == "SQ":
                for item in element.value:
                    yield from _own_words(item, depth + 1)
    for keyword in _NUMBERS_OF_PEOPLE:
        if keyword in dataset:
            yield from _WORD.findall(str(dataset[keyword].value).upper())


def _clean(
    dataset: Dataset, new_uid: Callable[[str], str], own: frozenset[str], depth: int
) -> None:
    for tag in list(dataset.keys()):
        action = _action(int(tag))
        # Group 0 is of messages; in a file it is what nulls after its end are read as.
        if tag.group == 0 or tag.is_private or not dictionary_has_tag(tag) or action == "X":
            del dataset[tag]
            continue
        element = dataset[tag]
        if action == "Z":
            element.value = None if element.VR != "SQ" else Sequence()
        elif action == "D":
            _replace(dataset, element)
        elif element.VR == "UI":
            element.value = _uids(element.value, new_uid)
        elif element.VR == "SQ":
            for item in element.value:
                _clean(item, new_uid, own, depth + 1)
        elif _goes(element):
            del dataset[tag]
        elif element.VR in _CODED:
            _hide(element, own)


def _goes(element: DataElement) -> bool:
    """Whether an attribute that the profile leaves may hold more than it says."""
    if element.VR in _BYTES:
        return element.tag.group not in _OF_PIXELS
    if int(element.tag) == _CHARACTER_SET:
        return not all(part in python_encoding for part in _parts(element))
    if element.VR in _NUMBERS:
        return not all(_NUMBER.match(part) for part in _parts(element))
    return element.VR in _WORDS and int(element.tag) not in _TECHNICAL


def _hide(element: DataElement, own: frozenset[str]) -> None:
    """Replace the values that repeat somebody's name or number."""
    parts = _parts(element)
    if any(own.intersection(_WORD.findall(part.upper())) for part in parts):
        element.value = [
            "REMOVED" if own.intersection(_WORD.findall(part.upper())) else part for part in parts
        ]


def _parts(element: DataElement) -> list[str]:
    value = element.value
    if value is None:
        return []
    return list(map(str, value)) if isinstance(value, MultiValue) else [str(value)]


def _replace(dataset: Dataset, element: DataElement) -> None:
    """Put something without meaning in the place of what may be neither empty nor absent."""
    if element.VR in _DUMMIES:
        element.value = _DUMMIES[element.VR]
    elif element.VR == "CS" or (element.VR in _WORDS and element.VR != "UN"):
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
