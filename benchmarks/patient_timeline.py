"""One patient's timeline, as a page asks for it: 100,000 patients, 17 million events, encrypted.

The store is made once; a process opens it, warms up on some patients and then reads others, each
with the look at what came in live. Median of the CPU time of one.

Baseline: the same patient's rows by one question to the whole store, which reads every file.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
from cohort_scale import make
from figures import Figure

from fedtwin_client.records.events import Event
from fedtwin_client.records.source import Version
from fedtwin_client.store.patient import PatientReader
from fedtwin_client.store.tail import Batch, Tail
from fedtwin_client.store.timeline import Timeline

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LIVE, READ, ASKED = 20_000, 200, 3


def measure(options: argparse.Namespace) -> list[Figure]:
    """Milliseconds of CPU for one patient."""
    del options
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "sealed"
        make(home)
        store = home / "records"
        subjects = _some(Timeline.open(store))
        _add_live(store, subjects)
        timeline = Timeline.open(store)
        with PatientReader(timeline) as reader:
            for subject in subjects[:20]:
                reader.events(subject)
            spent = _median(reader.events, subjects[20:])
        asked = _median(lambda subject: timeline.events(subjects=[subject]), subjects[-ASKED:])
    return [
        Figure(
            id="patient-timeline-ms",
            value=round(1000 * spent, 2),
            unit="ms CPU",
            baseline=round(1000 * asked, 2),
            goal=5,
        )
    ]


def _median(read: Callable[[int], object], subjects: list[int]) -> float:
    times = []
    for subject in subjects:
        began = time.process_time()
        read(subject)
        times.append(time.process_time() - began)
    return median(times)


def _some(timeline: Timeline) -> list[int]:
    db = timeline.connect()
    found = db.execute(
        "SELECT DISTINCT subject_id FROM events WHERE code = 'MEDS_BIRTH'"
    ).fetchall()
    db.close()
    chosen = np.random.default_rng(3).choice([row[0] for row in found], READ, replace=False)
    return [int(subject) for subject in chosen]


def _add_live(store: Path, subjects: list[int]) -> None:
    """A tail as it is between two compactions."""
    versions = [
        Version(
            origin=f"ward:{number}",
            updated=None,
            events=[
                Event(
                    subject_id=subjects[number % len(subjects)],
                    time=NOW,
                    code="LOINC//8867-4",
                    numeric_value=float(number % 90 + 40),
                    available_time=NOW,
                    unit="/min",
                    source=f"ward:{number}#0",
                )
            ],
        )
        for number in range(LIVE)
    ]
    with Tail(store) as tail:
        tail.add([Batch(door="ward", versions=versions)], frozenset(), NOW)
