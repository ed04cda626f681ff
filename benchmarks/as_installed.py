"""A process as a hospital has it: without what only tests and benchmarks install.

pyarrow loads pandas wherever it finds it, which costs half a second and 60 MB; no part of the
product depends on it.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any


class _Absent(MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        """Refuse one package."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not part of the product", name=name)


def without_pandas() -> None:
    """Let this process find no pandas from now on."""
    sys.meta_path.insert(0, _Absent())
