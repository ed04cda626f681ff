"""A patient's file as it is written → its checked parts, and everything that is wrong with it.

Where one part is wrong, the others are checked all the same, so that nobody mends a file one
mistake at a time: a faulty dose, level, covariate or section is left out of what is checked next,
and the original places of the rest are kept for later problems.
"""

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from fedtwin_protocol.contract import complaint
from fedtwin_protocol.strict_yaml import load_strictly
from fedtwin_research.twins.patient_file import PARTS, PatientFile
from fedtwin_twins.twin.refusals import Problem, Refusal

LARGEST: Final = 1_000_000
"""Bytes; a patient's file is a few thousand."""
_HINT: Final = "'fedtwin research twin --example' prints a file that works"
_LISTS: Final = ("doses", "meals", "levels", "occasions", "what_if")
_BY_NAME: Final = ("covariates", "genes", "baseline_risks")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadFile:
    """A file with what could be read of it.

    Attributes:
        content: the parts that are sound in themselves.
        sha256: of the file.
        places: by list, the original place of each kept line.
        faulty: fields that were left out, such as `doses` or `covariates.creatinine`.
        problems: what is wrong with them.
    """

    content: PatientFile
    sha256: str
    places: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    faulty: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()


def read_file(path: Path) -> ReadFile:
    """Read a patient's file.

    Raises:
        Refusal: it cannot be read, or is no YAML of a patient at all.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        said = f"check the path ({error.strerror or 'it cannot be read'})"
        raise Refusal(
            Problem(field=str(path), value="not readable", allowed="a file", remedy=said)
        ) from error
    return read_text(data, path.name)


def read_text(data: bytes, where: str) -> ReadFile:
    """The same from the file's bytes.

    Raises:
        Refusal: as `read_file`.
    """
    if len(data) > LARGEST:
        size = f"{len(data)} bytes"
        raise Refusal(Problem(field=where, value=size, allowed=f"at most {LARGEST}"))
    try:
        raw = load_strictly(data.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        if b"[" in data:
            text += " (write a unit with brackets in quotes: '4 [IU]')"
        raise Refusal(Problem(field=where, value="not YAML", remedy=text)) from error
    if not isinstance(raw, dict):
        allowed = "fields such as drug, covariates, doses and levels"
        raise Refusal(Problem(field=where, value="no patient", allowed=allowed, remedy=_HINT))
    return _validated(raw, hashlib.sha256(data).hexdigest())


def _validated(raw: dict[Any, Any], sha256: str) -> ReadFile:
    problems: list[Problem] = []
    faulty: set[str] = set()
    gone: dict[str, set[int]] = {name: set() for name in _LISTS}
    kept = deepcopy(raw)
    while True:
        try:
            content = PatientFile.model_validate(kept)
        except ValidationError as error:
            before = len(faulty)
            for item in error.errors(include_url=False):
                problems.extend(_problems(item, gone, raw))
                faulty.add(_left_out(item["loc"], gone))
            if len(faulty) == before:
                raise Refusal(*problems) from error
            kept = _without(raw, faulty, gone)
            continue
        places = {
            name: tuple(n for n in range(len(raw[name])) if n not in gone[name])
            for name in _LISTS
            if isinstance(raw.get(name), list) and name not in faulty
        }
        return ReadFile(
            content=content,
            sha256=sha256,
            places=places,
            faulty=frozenset(faulty),
            problems=tuple(dict.fromkeys(problems)),
        )


def _left_out(loc: tuple[Any, ...], gone: dict[str, set[int]]) -> str:
    """What is left out for an error: a line of a list, a named value, or a whole section."""
    section = str(loc[0]) if loc else ""
    if section in _LISTS and len(loc) > 1 and isinstance(loc[1], int):
        original = _original(section, loc[1], gone)
        return f"{section}[{original}]"
    if section in _BY_NAME and len(loc) > 1:
        return f"{section}.{loc[1]}"
    return section


def _original(section: str, place: int, gone: dict[str, set[int]]) -> int:
    """The place in the file of a line, of which earlier ones were left out."""
    kept = (n for n in range(place + len(gone[section]) + 1) if n not in gone[section])
    return list(kept)[place]


def _without(raw: dict[Any, Any], faulty: set[str], gone: dict[str, set[int]]) -> dict[Any, Any]:
    kept = deepcopy(raw)
    for name in _LISTS:
        lines = raw.get(name)
        if isinstance(lines, list):
            gone[name] = {n for n in range(len(lines)) if f"{name}[{n}]" in faulty}
            kept[name] = [one for n, one in enumerate(deepcopy(lines)) if n not in gone[name]]
    for one in faulty:
        section, _, name = one.partition(".")
        if name and isinstance(kept.get(section), dict):
            kept[section] = {k: v for k, v in kept[section].items() if str(k) != name}
        elif "[" not in one:
            kept = {key: value for key, value in kept.items() if str(key) != one}
    return kept


def _problems(item: Any, gone: dict[str, set[int]], raw: Any) -> Iterator[Problem]:
    loc = list(item["loc"])
    if loc and loc[0] in _LISTS and len(loc) > 1 and isinstance(loc[1], int):
        loc[1] = _original(loc[0], loc[1], gone)
    where = path_of(loc) or "the file"
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, Refusal):
        for one in cause.problems:
            yield Problem(
                field=f"{where}{one.field}",
                value=one.value,
                unit=one.unit,
                allowed=one.allowed,
                remedy=one.remedy,
            )
    elif item["type"] == "extra_forbidden":
        yield _unknown(loc, where)
    elif item["type"] == "missing":
        yield Problem(field=where, remedy=_HINT)
    else:
        given = item.get("input")
        value = given if isinstance(given, str) else repr(given)
        yield Problem(field=where, value=value[:80] or "empty", allowed=_expected(item))


def _expected(item: Any) -> str:
    text = complaint(item)
    for start in ("Input should be ", "Value should be "):
        text = text.removeprefix(start)
    return text


def _unknown(loc: list[Any], where: str) -> Problem:
    holders = [one for one in loc[:-1] if isinstance(one, str) and one in PARTS]
    known = list(PARTS[holders[-1] if holders else ""].model_fields)
    near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else ""
    return Problem(field=where, value="unknown", allowed=" or ".join(known), remedy=remedy)


def path_of(loc: list[Any]) -> str:
    """`doses[1].amount` from pydantic's (doses, 1, amount)."""
    text = ""
    for one in loc:
        text += f"[{one}]" if isinstance(one, int) else f".{one}" if text else str(one)
    return text
