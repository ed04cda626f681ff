"""Coverage-guided fuzzing of every parser of records; needs the extra `fuzz`."""

import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 30
NAMES = ("fhir", "hl7", "openmhealth", "glucose", "apple-health", "genome", "pharmcat")


@pytest.mark.fuzz
@pytest.mark.parametrize("name", NAMES)
def test_any_bytes_are_read_or_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="pip install -e '.[fuzz]' brings it")
    script = Path(__file__).with_name("sources.py")
    done = subprocess.run(
        [sys.executable, str(script), name, str(SECONDS), str(tmp_path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr, done.stderr[-2000:]
