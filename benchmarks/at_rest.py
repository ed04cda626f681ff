"""What encryption at rest costs: the same records, plain and encrypted, side by side.

Timelines: an import of events into an empty store, and the scan that a cohort makes. SQLite: the
rows of a ledger's size in transactions of their own, and in one.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from figures import Figure

from fedtwin_client.at_rest.database import connect
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.sealing import make_keys
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.timeline import Timeline

PATIENTS, REPEATS = 20_000, 3
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def measure(options: argparse.Namespace) -> list[Figure]:
    """All figures of this module: encrypted over plain, CPU time."""
    del options
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export = _export(folder)
        plain, sealed = _node(folder / "plain", False), _node(folder / "sealed", True)
        imports = _ratio(partial(_import, export), plain, sealed)
        scans = _ratio(_scan, plain, sealed)
        rows = _ratio(_write_rows, plain, sealed)
    return [
        Figure(id="at-rest-import-ratio", value=imports, unit="x plain, CPU", baseline=1, goal=1.3),
        Figure(id="at-rest-scan-ratio", value=scans, unit="x plain, CPU", baseline=1, goal=10),
        Figure(id="at-rest-sqlite-ratio", value=rows, unit="x plain, CPU", baseline=1, goal=1.5),
    ]


def _ratio(work: Callable[[NodeHome], None], plain: NodeHome, sealed: NodeHome) -> float:
    """Medians of turns that alternate."""
    spent: dict[str, list[float]] = {"plain": [], "sealed": []}
    for _ in range(REPEATS):
        for name, home in (("plain", plain), ("sealed", sealed)):
            began = time.process_time()
            work(home)
            spent[name].append(time.process_time() - began)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    return round(medians["sealed"] / medians["plain"], 2)


def _node(folder: Path, encrypted: bool) -> NodeHome:
    home = NodeHome(folder=folder / "node")
    home.folder.mkdir(parents=True)
    home.settings_file.write_text("consortium: demo\nsite: aal\ncoordinator: here:1\n")
    if encrypted:
        make_keys(home)
    return home


def _export(folder: Path) -> Path:
    file = folder / "export.ndjson"
    with file.open("w") as stream:
        for number in range(PATIENTS * 5):
            resource = {
                "resourceType": "Observation",
                "id": f"o{number}",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
                "subject": {"reference": f"Patient/{number % PATIENTS}"},
                "effectiveDateTime": f"20{10 + number % 14}-05-01",
                "valueQuantity": {"value": 100 + number % 80, "unit": "mm[Hg]"},
            }
            stream.write(json.dumps(resource) + "\n")
    return file


def _import(export: Path, home: NodeHome) -> None:
    import_fhir([export], home.records, secret=b"s" * 32, now=NOW)


def _scan(home: NodeHome) -> None:
    with closing(Timeline.open(home.records).connect()) as db:
        for _ in range(5):
            db.execute(
                "SELECT subject_id, max(time), avg(numeric_value) FROM events"
                " WHERE code = 'LOINC//8480-6' GROUP BY subject_id"
            ).fetchall()


def _write_rows(home: NodeHome) -> None:
    path = home.folder / "rows.sqlite"
    path.unlink(missing_ok=True)
    with closing(connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
        for number in range(200):
            db.execute("INSERT INTO t (b) VALUES (?)", (f"entry {number}" * 20,))
        db.execute("BEGIN")
        db.executemany("INSERT INTO t (b) VALUES (?)", [(f"row {n}" * 5,) for n in range(100_000)])
        db.execute("COMMIT")
        db.execute("SELECT sum(length(b)) FROM t").fetchone()
