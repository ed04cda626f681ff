"""The demo leaves no process behind, however it ends, and takes tables of other rows."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

HEART = Path(__file__).parents[3] / "shared" / "data" / "uci_heart"
SITES = ("cleveland", "hungarian", "switzerland", "va")


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "fedtwin.main", "demo", "--folder", str(folder), *options]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a job in the background has SIGINT ignored, which a child would inherit
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
    )


@pytest.mark.parametrize(
    "ending", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_stopping_the_demo_leaves_no_process_behind(tmp_path: Path, ending: signal.Signals) -> None:
    """The signal goes to the demo alone, when a coordinator and a hospital run already."""
    demo = start(tmp_path / "demo")
    family: list[psutil.Process] = []
    deadline = time.monotonic() + 180
    while not (tmp_path / "demo" / "hospital-b" / "identity").exists():
        assert demo.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    family = psutil.Process(demo.pid).children(recursive=True)
    assert len(family) >= 2, "expected a coordinator and a hospital"
    demo.send_signal(ending)
    _, said = demo.communicate(timeout=240)
    _, alive = psutil.wait_procs(family, timeout=20)
    left = [" ".join(process.cmdline()) for process in alive]
    assert left == []
    assert demo.returncode in {130, -signal.SIGINT}
    assert "Traceback" not in said
    named = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid()
    ]
    assert named == []


def rows(site: str) -> list[str]:
    return (HEART / f"processed.{site}.data").read_text().splitlines()


def play(run_demo: Callable[..., Any], folder: Path, tmp_path: Path) -> Any:
    words = ("--heart-disease", str(folder), "--json", str(tmp_path / "table.json"))
    return run_demo(*words, patience_s=600)


@pytest.mark.slow
@pytest.mark.skipif(not HEART.is_dir(), reason="the UCI heart disease set is not here")
def test_tables_with_other_rows_and_a_hospital_that_is_too_small(
    tmp_path: Path, run_demo: Callable[..., Any]
) -> None:
    """Shuffled, fewer, without a last line end; one hospital of ten patients stays away."""
    shuffler = random.Random(5)
    for site in SITES:
        chosen = shuffler.sample(rows(site), k=10 if site == "switzerland" else 150)
        (tmp_path / f"processed.{site}.data").write_text("\n".join(chosen))
    done = play(run_demo, tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    closing = json.loads((tmp_path / "table.json").read_text())
    assert set(closing["sites"]) == set(SITES) - {"switzerland"}
    assert "switzerland: declined, because" in done.stdout
    assert "was the file cut off?" not in done.stderr


@pytest.mark.skipif(not HEART.is_dir(), reason="the UCI heart disease set is not here")
def test_too_few_hospitals_end_the_demo_at_once_with_the_reasons(
    tmp_path: Path, run_demo: Callable[..., Any]
) -> None:
    for site in SITES:
        few = 10 if site in {"switzerland", "va"} else 150
        (tmp_path / f"processed.{site}.data").write_text("\n".join(rows(site)[:few]) + "\n")
    done = play(run_demo, tmp_path, tmp_path)
    assert done.returncode == 2
    assert "only 2 of 4 hospitals can take part, and the plan needs 3" in done.stderr
    assert "switzerland: " in done.stderr
    assert "Traceback" not in done.stderr
