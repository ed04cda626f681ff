"""The rules of the house: file sizes, light imports, no keys in the repository."""

import subprocess
import sys
import time
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


def test_files_do_one_thing() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {len(path.read_text().splitlines())}"
        for path in source_files()
        if len(path.read_text().splitlines()) > 400
    ]
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in source_files() if not path.read_text().startswith('"""')]
    assert silent == []


def imported_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    return {name.partition(".")[0] for name in output.split()}


def test_the_coordinator_and_the_agent_are_light() -> None:
    heavy = {"torch", "scipy", "opacus", "dp_accounting", "flwr", "duckdb"}
    assert imported_by("import fedtwin_server.coordinator") & heavy == set()
    assert imported_by("import fedtwin_client.node.agent") & heavy == set()


def test_help_loads_no_party() -> None:
    code = "import sys; sys.argv = ['fedtwin', '--help']\nfrom fedtwin.main import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    loaded = imported_by(code)
    assert not loaded & {"torch", "grpc", "numpy", "fedtwin_server", "fedtwin_client"}


def test_help_is_quick_beside_the_interpreter_with_typer() -> None:
    def seconds(*words: str) -> float:
        best = 1e9
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], capture_output=True, check=True)
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds("-m", "fedtwin.main", "--help") < 5 * seconds("-c", "import typer")


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
