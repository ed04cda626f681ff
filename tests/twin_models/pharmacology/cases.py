"""Published cases of pharmacology, where they are."""

import json
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).parents[4] / "shared" / "cases" / "pharmacology"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")


def case(name: str) -> Any:
    """One case, as it lies there."""
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
