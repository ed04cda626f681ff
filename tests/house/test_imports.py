"""Who loads what: walls between the parts, light commands, Flower behind its adapters."""

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("protocol", "twin_models", "client", "server", "research", "cli")
FLOWER = {
    "client/fedtwin_client/training/flower.py",
    "server/fedtwin_server/flower.py",
    "cli/fedtwin/demo/simulation.py",
}
HEAVY = {"torch", "scipy", "opacus", "dp_accounting", "flwr", "duckdb", "pyarrow", "ray"}
HELP_SECONDS = 0.5
# Gone from the standard library in Python 3.12 or 3.13.
GONE = {
    *("aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils"),
    *("imghdr", "imp", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes", "smtpd"),
    *("sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
}


def source_files() -> list[Path]:
    return [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]


def imported_in(path: Path) -> set[str]:
    """Top names of everything that a file imports, at its head or later."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def loaded_by(statement: str) -> set[str]:
    """Top names of the modules that are loaded after a statement, in a new process."""
    code = f"import sys\n{statement}\nprint(' '.join(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    return {name.partition(".")[0] for name in output.splitlines()[-1].split()}


def test_the_walls_hold() -> None:
    """The contracts of pyproject.toml: layers, strangers, and what each part may not reach."""
    code = "from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "0 broken" in done.stdout


def test_flower_is_known_to_its_adapters_alone() -> None:
    found = {str(path.relative_to(ROOT)) for path in source_files() if "flwr" in imported_in(path)}
    assert found == FLOWER


def test_telemetry_is_off_before_flower_is_imported() -> None:
    for name in FLOWER:
        text = (ROOT / name).read_text()
        first = min(text.find(words) for words in ("import flwr", "from flwr") if words in text)
        for flag in ('"FLWR_TELEMETRY_ENABLED"] = "0"', '"FLWR_DISABLE_UPDATE_CHECK"] = "1"'):
            assert 0 < text.find(flag) < first, f"{name}: {flag}"


@pytest.mark.parametrize(
    "module",
    ["fedtwin_server.coordinator", "fedtwin_server.consortium", "fedtwin_client.node.agent"],
)
def test_the_coordinator_and_the_agent_are_light(module: str) -> None:
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_the_coordinator_with_flower_still_has_no_torch() -> None:
    loaded = loaded_by("import fedtwin_server.flower")
    assert "flwr" in loaded
    assert loaded & {"torch", "opacus", "duckdb", "dp_accounting", "fedtwin_twins"} == set()


@pytest.mark.parametrize("words", ["", "server", "client", "research", "demo", "client check"])
def test_help_loads_no_party_and_nothing_heavy(words: str) -> None:
    arguments = ["fedtwin", *words.split(), "--help"]
    code = f"sys.argv = {arguments}\nfrom fedtwin.main import main\n"
    code += "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
    parties = {"fedtwin_server", "fedtwin_client", "fedtwin_research", "fedtwin_twins"}
    assert loaded_by(code) & (HEAVY | parties | {"grpc", "numpy", "cryptography"}) == set()


@pytest.mark.parametrize("words", ["", "client"])
def test_help_answers_in_half_a_second(words: str) -> None:
    """Of processor time, the best of three: a busy machine does not count."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(3):
        before = spent()
        subprocess.run(
            [sys.executable, "-m", "fedtwin.main", *words.split(), "--help"],
            capture_output=True,
            check=True,
        )
        times.append(spent() - before)
    assert min(times) < HELP_SECONDS


def test_nothing_is_used_that_newer_pythons_lack() -> None:
    guilty = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (*source_files(), *(ROOT / "tests").rglob("*.py"))
        for name in imported_in(path) & GONE
    }
    assert guilty == set()


def test_generated_stubs_are_fresh() -> None:
    script = str(ROOT / "scripts" / "protos.py")
    done = subprocess.run(
        [sys.executable, script, "--check"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
