"""The rules of the house: file sizes, public names, no keys in the repository."""

import ast
import importlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("protocol", "twin_models", "client", "server", "research", "cli")


def source_files() -> list[Path]:
    return [
        path
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*.py")
        if not path.name.endswith("_pb2.py")
    ]


def too_long(paths: Iterable[Path], most: int) -> list[str]:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in paths}
    return [f"{path}: {length}" for path, length in lengths.items() if length > most]


def test_files_do_one_thing() -> None:
    assert too_long(source_files(), 400) == []


def test_tests_do_too() -> None:
    """A little longer, because cases stand side by side."""
    assert too_long((ROOT / "tests").rglob("*.py"), 520) == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in source_files() if not path.read_text().startswith('"""')]
    assert silent == []


def test_public_names_are_few_and_there() -> None:
    """An `__init__.py` is a docstring, or the short list of a package's public names."""
    for path in source_files():
        tree = ast.parse(path.read_text())
        if path.name == "__init__.py" and "/v1/" not in str(path):
            kinds = {type(node).__name__ for node in tree.body}
            assert kinds <= {"Expr", "ImportFrom", "Assign"}, path
        listed = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ]
        if listed:
            names = ast.literal_eval(listed[0])
            assert names == sorted(names, key=_kind_then_name), f"{path}: __all__ is not in order"
            assert len(names) == len(set(names)), path
            module = importlib.import_module(module_name(path))
            assert [name for name in names if not hasattr(module, name)] == [], path


def _kind_then_name(name: str) -> tuple[int, str]:
    """Constants, classes, functions; each by name."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_private_key_is_committed() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    marks = [b"-----BEGIN " + kind + b"PRIVATE KEY" for kind in (b"", b"EC ", b"ENCRYPTED ")]
    guilty = [
        name
        for name in files
        if name and (ROOT / name).is_file() and any(m in (ROOT / name).read_bytes() for m in marks)
    ]
    assert guilty == []
