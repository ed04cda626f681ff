"""What imports put aside: looking at it, handing it out to be mended, and reading it again.

Each quarantine file has a recipe beside it (`.json`): how its import or its door read. Lines that
are handed out bear the name of their file and a digest of their own, by which they find back. Once
a mended line was imported it leaves its file; if something is still wrong with it, the import that
replayed it has put it aside anew, in a file of its own. The recipe notes what was replayed, and
when.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fedtwin_client.at_rest.files import open_file, read_whole, write_whole
from fedtwin_client.at_rest.keyring import keyring_of
from fedtwin_client.records.mended import MendedLine
from fedtwin_client.records.report import ImportReport, Place, Recipe
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.rereading import KINDS, opened_again, trusted
from fedtwin_protocol.errors import ConfigurationError, RecordError

_LARGEST: Final = 256 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What became of mended lines.

    Attributes:
        reports: of the imports, one for each quarantine file.
        passed_over: lines that were not read, with the reason.
    """

    reports: list[ImportReport] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """In words."""
        told = [line for report in self.reports for line in report.lines()]
        return told + [f"{count:>8,}  {reason}" for reason, count in self.passed_over.items()]


def names(store: Path) -> list[str]:
    """The quarantine files, oldest first."""
    return sorted(path.name for path in (store / "quarantine").glob("*.ndjson"))


def listed(store: Path) -> list[str]:
    """The quarantine files in words: how much is in them, and what was replayed."""
    told = []
    for name in names(store):
        count = sum(1 for _ in lines_of(store, name))
        history = _beside(store, name).get("replayed", [])
        when = f", {sum(one['lines'] for one in history)} replayed" if history else ""
        told.append(f"{name}: {count} lines{when}" if when else name)
    return told or ["nothing is put aside"]


def lines_of(store: Path, name: str) -> Iterator[str]:
    """What is in a quarantine file, line by line.

    Raises:
        ConfigurationError: there is none of that name, or it does not open.
    """
    path = _file(store, name)
    with open_file(path, keyring_of(store)) as file:
        for line in file:
            yield line.decode("utf-8").rstrip("\n")


def export(store: Path, name: str, target: Path) -> int:
    """Hand out a quarantine file's lines to be mended: a file that its owner alone can read.

    Returns:
        How many lines.

    Raises:
        ConfigurationError: there is no such quarantine file, or the target is there or cannot be
            written.
    """
    path = _file(store, name)
    if target.exists():
        raise ConfigurationError(f"{target} is there already: name a new file")
    found = [
        json.dumps({"quarantine": path.name, "id": _digest(line), **json.loads(line)})
        for line in lines_of(store, path.name)
    ]
    try:
        write_whole(target.resolve(), "".join(f"{line}\n" for line in found).encode(), None)
    except OSError as error:
        raise ConfigurationError(f"cannot write {target}: {error.strerror}") from error
    return len(found)


def replay(
    store: Path, mended: Path, secret: bytes, now: datetime, *, merges: bool = False
) -> Replayed:
    """Import mended lines as the import that put them aside would have.

    Args:
        store: the timeline store's folder.
        mended: lines of `export`, whose `raw` a person has mended.
        secret: the site's 32 bytes that pseudonyms are made with.
        now: aware; records that lie after it are put aside.
        merges: believe HL7 v2 messages among them that two numbers are one patient.

    Raises:
        RecordError: the file is none of `export`, its import cannot be repeated, or an import runs.
    """
    done = Replayed()
    for name, entries in _by_file(mended).items():
        known = {_digest(line): json.loads(line) for line in lines_of(store, name)}
        recipe = _recipe(store, name)
        if merges:
            recipe = trusted(recipe)
        lines: list[MendedLine] = []
        ids: list[str] = []
        for entry in entries:
            before = known.get(entry["id"])
            reason = _unfit(entry, before)
            if reason is not None:
                done.passed_over[reason] = done.passed_over.get(reason, 0) + 1
                continue
            assert before is not None
            if entry["id"] not in ids:
                lines.append(_mended(entry, before))
                ids.append(entry["id"])
        if not lines:
            continue
        report = import_source(
            opened_again(lines, recipe, store),
            store,
            secret=secret,
            now=now,
            source=recipe.source,
            zone=recipe.zone,
            recipe=recipe,
            replayed=True,
        )
        done.reports.append(report)
        _drop(store, name, frozenset(ids), now)
    return done


def _mended(entry: Mapping[str, Any], before: Mapping[str, Any]) -> MendedLine:
    patient = entry.get("patient", before.get("patient"))
    return MendedLine(
        place=Place(str(before["file"]), int(before["line"])),
        text=entry["raw"],
        before=str(before["raw"]),
        patient=None if patient is None else str(patient),
    )


def _unfit(entry: Mapping[str, Any], before: Mapping[str, Any] | None) -> str | None:
    """Why a mended line is not read, if so."""
    if before is None:
        return "lines that are not in quarantine any more: they were replayed before"
    if before.get("cut") and entry["raw"] == before["raw"]:
        return "lines of which only the beginning was kept: put the whole text into 'raw'"
    return None


def _by_file(mended: Path) -> dict[str, list[dict[str, Any]]]:
    """The mended lines by their quarantine file."""
    try:
        if mended.stat().st_size > _LARGEST:
            raise RecordError(f"{mended} is larger than 256 MiB; replay it in parts")
        text = mended.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read {mended}: {error}; nothing was imported") from error
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            entry = _entry(line, f"{mended}:{number}")
            found[entry["quarantine"]].append(entry)
    if not found:
        raise RecordError(f"found no line in {mended}; nothing was imported")
    return found


def _entry(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{where} is not JSON: {error}; within 'raw' a quotation mark is written \\\" and a "
            "line's end \\n. Nothing was imported"
        ) from error
    wanted = ("quarantine", "id", "raw")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in wanted):
        if isinstance(entry, dict) and isinstance(entry.get("raw"), dict):
            return _entry(json.dumps(entry | {"raw": json.dumps(entry["raw"])}), where)
        raise RecordError(
            f"{where}: expected a line of 'fedtwin client records quarantine FILE --export', with "
            "'quarantine', 'id' and 'raw'; nothing was imported"
        )
    return entry


def _recipe(store: Path, name: str) -> Recipe:
    recipe = Recipe.of(_beside(store, name))
    if recipe is None or recipe.kind not in KINDS:
        raise RecordError(
            f"what is in {name} cannot be replayed line by line: mend it where it comes from, and "
            "import that again, which replaces what was imported of it"
        )
    return recipe


def _beside(store: Path, name: str) -> dict[str, Any]:
    path = _file(store, name).with_suffix(".json")
    try:
        value = json.loads(read_whole(path, keyring_of(store)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    return value if isinstance(value, dict) else {}


def _drop(store: Path, name: str, ids: frozenset[str], now: datetime) -> None:
    """Take replayed lines out of their file, and note it; the file stays, perhaps empty."""
    path, keyring = _file(store, name), keyring_of(store)
    kept = [line for line in lines_of(store, name) if _digest(line) not in ids]
    value = _beside(store, name)
    value.setdefault("replayed", []).append(
        {"time": now.astimezone(UTC).isoformat(), "lines": len(ids)}
    )
    try:
        write_whole(path.with_suffix(".json"), json.dumps(value).encode(), keyring)
        write_whole(path, "".join(f"{line}\n" for line in kept).encode(), keyring)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}; replay again") from error


def _file(store: Path, name: str) -> Path:
    path = store / "quarantine" / Path(name).name
    if path.name not in names(store):
        there = ", ".join(names(store)) or "none"
        raise ConfigurationError(f"there is no quarantine file '{path.name}'; there are: {there}")
    return path


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode("utf-8", "surrogatepass")).hexdigest()[:16]
