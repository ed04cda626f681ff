"""Coverage-guided fuzzing of everything that is read; needs the extra `fuzz`."""

import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 30
NAMES = {
    "sources": ("fhir", "hl7", "openmhealth", "glucose", "apple-health", "genome", "pharmcat"),
    "images": ("dicom", "dicom-segmentation", "dicomdir", "nifti", "nifti-labels"),
    "documents": (
        *("card", "trial", "trial-rows", "patient"),
        *("drugs", "gene-effects", "interactions", "recommendations"),
    ),
}


@pytest.mark.fuzz
@pytest.mark.parametrize(
    ("script", "name"), [(script, name) for script, names in NAMES.items() for name in names]
)
def test_any_bytes_are_read_or_refused(script: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="pip install -e '.[fuzz]' brings it")
    path = Path(__file__).with_name(f"{script}.py")
    done = subprocess.run(
        [sys.executable, str(path), name, str(SECONDS), str(tmp_path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr, done.stderr[-2000:]
