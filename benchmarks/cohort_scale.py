"""A cohort of 100,000 patients and 17 million values: the product's own way, beside pandas.

Both answer the same question from the same Parquet files: twelve laboratory values, each as last,
mean, lowest, highest and number of the 730 days before the index date, of what was known by then.
One thread each, a process each; CPU seconds, the least of a few turns in which all take part alike,
because other work on the machine only ever adds to them. The product also selects the patients and
checks units and plausible ranges. A readiness report of the same laboratory values is measured
beside them. Both from encrypted files are measured too, and told.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from as_installed import without_pandas
from figures import Figure

from fedtwin_client.records.blocks import EVENTS, VERSIONS, Block

PATIENTS, VALUES, PIECE = 100_000, 17_000_000, 500_000
LABS = ("2093-3", "2085-9", "2571-8", "2339-0", "2160-0", "3094-0")
LABS += ("2951-2", "2823-3", "2075-0", "2028-9", "1975-2", "3084-1")
UNITS = ("mmol/L",) * 4 + ("umol/L",) + ("mmol/L",) * 5 + ("umol/L", "umol/L")
SUMMARIES = ("last", "mean", "min", "max", "count")
NOW, INDEX = datetime(2026, 3, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
DAYS, TURNS = 730, 4


def measure(options: argparse.Namespace) -> list[Figure]:
    """CPU seconds of the product, and how many times as long pandas takes."""
    del options
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for store in ("plain", "sealed"):
            _run("make", folder / store)
        asked = [(what, folder / "plain") for what in ("product", "pandas", "readiness")]
        asked += [(what, folder / "sealed") for what in ("product", "readiness")]
        turns = [[_run(*one) for one in asked] for _ in range(TURNS)]
        plain, peer, ready, sealed, ready_sealed = (
            min(each, key=lambda said: said["cpu"]) for each in zip(*turns, strict=True)
        )
        assert np.isclose(plain["sum"], peer["sum"], rtol=1e-9), (plain, peer)
        print(f"cohort: plain {plain}, encrypted {sealed}, pandas {peer}", file=sys.stderr)
        print(f"readiness: plain {ready}, encrypted {ready_sealed}", file=sys.stderr)
    ratio = round(peer["cpu"] / plain["cpu"], 2)
    return [
        Figure(
            id="cohort-over-pandas",
            value=ratio,
            unit="x as fast, CPU",
            baseline=1,
            goal=3,
            higher_is_better=True,
        ),
        Figure(
            id="cohort-cpu-s",
            value=round(plain["cpu"], 2),
            unit="s CPU",
            baseline=round(peer["cpu"], 2),
            goal=2,
        ),
        Figure(
            id="readiness-cpu-s",
            value=round(ready["cpu"], 2),
            unit="s CPU",
            baseline=round(peer["cpu"], 2),
            goal=3,
        ),
    ]


def _run(what: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, what, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def make(folder: Path) -> dict[str, float]:
    """A store of random values; encrypted if the folder is called so."""
    from fedtwin_client.at_rest.boxes import fresh_key
    from fedtwin_client.at_rest.keyring import keyring_of
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.sealing import make_keys
    from fedtwin_client.store.commit import take_over
    from fedtwin_client.store.manifest import Manifest
    from fedtwin_client.store.origins import Origins
    from fedtwin_client.store.staging import Staging

    home = NodeHome(folder=folder)
    home.folder.mkdir(parents=True)
    home.settings_file.write_text("consortium: demo\nsite: aal\ncoordinator: here:1\n")
    if folder.name == "sealed":
        make_keys(home)
    (home.records / "staging").mkdir(parents=True)
    state, key = Manifest(), fresh_key() if folder.name == "sealed" else None
    staging = Staging(home.records / "staging", Origins(state.names_key), key)
    random = np.random.default_rng(1)
    subjects = np.unique(random.integers(0, 2**62, PATIENTS))
    staging.add_block(_births(subjects))
    for start in range(0, VALUES, PIECE):
        staging.add_block(_values(random, subjects, start))
    staging.flush()
    keyring = keyring_of(home.records)
    taken = take_over(home.records, staging, state, keyring, origin="made up", now=NOW)
    return {"events": taken.events}


def _births(subjects: np.ndarray) -> Block:
    count = len(subjects)
    born = np.full(count, np.datetime64("1970-01-01", "us"))
    return _block(
        subjects,
        born,
        born,
        pa.array(["MEDS_BIRTH"] * count),
        pa.nulls(count, pa.float64()),
        pa.nulls(count, pa.string()),
        0,
    )


def _values(random: np.random.Generator, subjects: np.ndarray, start: int) -> Block:
    count = min(PIECE, VALUES - start)
    lab = random.integers(0, len(LABS), count)
    time_us = (
        np.datetime64("2020-01-01", "us") + random.integers(0, 6 * 365 * 86_400, count) * 1_000_000
    )
    known = time_us + random.integers(0, 3 * 86_400, count) * 1_000_000
    codes = pa.array([f"LOINC//{code}" for code in LABS]).take(pa.array(lab))
    units = pa.array(UNITS).take(pa.array(lab))
    values = pa.array(np.round(random.lognormal(1.5, 0.5, count), 2))
    who = subjects[random.integers(0, len(subjects), count)]
    return _block(who, time_us, known, codes, values, units, start + PATIENTS)


def _block(
    subjects: Any, times: Any, known: Any, codes: Any, values: Any, units: Any, start: int
) -> Block:
    count = len(subjects)
    numbers = pa.array(np.arange(count))
    origin = pc.binary_join_element_wise(
        "bench:lab/", pa.array(np.arange(start, start + count)).cast(pa.string()), ""
    )
    nothing = pa.nulls(count, pa.string())
    return Block(
        versions=pa.Table.from_arrays(
            [numbers, origin, pa.array(np.zeros(count, np.int64))], schema=VERSIONS
        ),
        events=pa.Table.from_arrays(
            [
                *(
                    pa.array(subjects),
                    pa.array(times),
                    codes,
                    values,
                    pa.nulls(count, pa.large_string()),
                ),
                *(pa.array(known), units, units, nothing),
                *(pc.binary_join_element_wise(origin, "0", "#"), nothing, numbers),
            ],
            schema=EVENTS,
        ),
    )


def product(folder: Path) -> dict[str, float]:
    """The features as a study's training has them, before encoding and after selection."""
    without_pandas()
    from fedtwin_client.cohort.gathering import gather
    from fedtwin_client.store.pieces import PatientColumns
    from fedtwin_client.store.timeline import Timeline

    plan = _plan()
    began = time.process_time()
    columns = PatientColumns(timeline=Timeline.open(folder / "records"))
    found = gather(columns, plan, NOW.replace(tzinfo=None))
    spent = time.process_time() - began
    total = sum(float(np.nansum(column)) for column in found.features.columns.values())
    return {"cpu": spent, "sum": total, "patients": len(found.selected.subject_ids)}


def readiness(folder: Path) -> dict[str, float]:
    """A report of the twelve values."""
    without_pandas()
    from fedtwin_client.readiness.measures import measure as report_of
    from fedtwin_client.store.timeline import Timeline

    plan = _plan()
    plan.features = tuple(one for one in plan.features if one.summary == "last")
    plan.hash = "0" * 64
    began = time.process_time()
    report = report_of(Timeline.open(folder / "records"), plan, NOW)
    return {"cpu": time.process_time() - began, "rows": report.site.rows}


def _plan() -> Any:
    from fedtwin_protocol.contract import Feature
    from fedtwin_protocol.study_patients import Cohort, Endpoint, IndexDate

    features = tuple(
        Feature(
            name=f"lab{number}_{summary}",
            kind="number",
            codes=(f"LOINC//{code}",),
            unit=unit,
            plausible=(0.0, 1e6),
            window_days=DAYS,
            summary=summary,
        )
        for number, (code, unit) in enumerate(zip(LABS, UNITS, strict=True))
        for summary in SUMMARIES
    )
    cohort = Cohort(index=IndexDate(date=INDEX), holdout_salt="benchmark-salt")
    endpoint = Endpoint(
        name="death",
        kind="event",
        codes=("MEDS//DEATH",),
        horizon_days=365,
        require_follow_up=False,
    )
    return SimpleNamespace(
        study="benchmark", features=features, cohort=cohort, endpoint=endpoint, sequence=None
    )


def pandas(folder: Path) -> dict[str, float]:
    """The same with pandas, from the same files."""
    import pandas as pd
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    began = time.process_time()
    index = pd.Timestamp(INDEX.replace(tzinfo=None))
    columns = ["subject_id", "time", "available_time", "code", "numeric_value"]
    files = sorted((folder / "records" / "events").glob("*.parquet"))
    events = pa.concat_tables(
        pq.read_table(file, columns=columns, read_dictionary=["code"], use_threads=False)
        for file in files
    ).to_pandas()
    wanted = events["code"].isin([f"LOINC//{code}" for code in LABS])
    times = (events["time"] <= index) & (events["available_time"] <= index)
    window = events["time"] >= index - pd.Timedelta(days=DAYS)
    groups = events[wanted & times & window].groupby(["subject_id", "code"], observed=True)
    found = groups["numeric_value"].agg(list(SUMMARIES))
    wide = found.unstack("code")
    spent = time.process_time() - began
    return {"cpu": spent, "sum": float(np.nansum(wide.to_numpy())), "patients": len(wide)}


if __name__ == "__main__":
    print(
        json.dumps(
            {"make": make, "product": product, "pandas": pandas, "readiness": readiness}[
                sys.argv[1]
            ](Path(sys.argv[2]))
        )
    )
