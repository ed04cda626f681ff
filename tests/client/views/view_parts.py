"""Views and mappings of the guide, and resources for them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fedtwin_client.records.views.definition import parse_view
from fedtwin_client.records.views.running import View

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "sources" / "views.md").read_text()
JSON_BLOCKS = re.findall(r"^```json\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
YAML_BLOCKS = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
ID = {"name": "id", "path": "id", "type": "id"}
PROCEDURE: dict[str, Any] = {
    "resourceType": "Procedure",
    "id": "p1",
    "status": "completed",
    "subject": {"reference": "Patient/1"},
    "performedPeriod": {"start": "2024-05-01T10:00:00+02:00"},
    "code": {
        "coding": [
            {"system": "http://snomed.info/sct", "code": "232717009"},
            {"system": "http://h/local", "code": "CABG"},
        ]
    },
}


def view_of(*columns: dict[str, Any], **more: Any) -> View:
    written = {"resource": "Patient", "select": [{"column": list(columns)}], **more}
    return View(parse_view(written, "v.json"), "v.json", NOW)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["reference", "coding", "system", "code", "start", "id", "value", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
