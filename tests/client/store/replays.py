"""What tests of mended lines share: mending, and what then stands in a store and in quarantine."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.store.quarantine import Replayed, export, lines_of, names, replay
from fedtwin_client.store.timeline import Timeline

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2026, 3, 2, tzinfo=UTC)
SECRET = b"\x07" * 32
MRN = "http://h/mrn"
Mend = Callable[[dict[str, Any]], dict[str, Any]]


def mend(store: Path, *changes: tuple[str, str]) -> Replayed:
    """Hand out the newest quarantine file, change what stands in 'raw', and replay it."""

    def changed(entry: dict[str, Any]) -> dict[str, Any]:
        raw = entry["raw"]
        for old, new in changes:
            raw = raw.replace(old, new)
        return entry | {"raw": raw}

    return mend_by(store, changed)


def mend_by(store: Path, change: Mend) -> Replayed:
    out = store.parent / f"{len(list(store.parent.iterdir()))}.ndjson"
    export(store, names(store)[-1], out)
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    out.write_text("".join(json.dumps(change(entry)) + "\n" for entry in entries))
    return replay(store, out, SECRET, LATER)


def aside(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for name in names(store) for line in lines_of(store, name)]


def held(store: Path) -> dict[str, Any]:
    """Every event's value by its source."""
    found = Timeline.open(store).events().to_pylist()
    values = {
        event["source"].removesuffix("/0"): event["text_value"]
        or event["numeric_value"]
        or event["code"]
        for event in found
    }
    assert len(values) == len(found), "an event came twice"
    return values


def whose(number: str) -> int:
    return pseudonym(SECRET, Identity(MRN, number))
