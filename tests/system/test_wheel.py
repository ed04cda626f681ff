"""What is handed over: a wheel with everything in it, installed by plain pip, also offline."""

import os
import socket
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

from fedtwin.demo.consortium import free_port

ROOT = Path(__file__).parents[2]
CONSTRAINTS = str(ROOT / "constraints.txt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


class CleanVenv:
    """A virtual environment that knows nothing of this checkout."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self._programs = folder / "bin"
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        }

    def run(self, program: str, *words: str, status: int = 0) -> str:
        """Run a program of the environment to its end."""
        done = subprocess.run(
            [str(self._programs / program), *words],
            env=self._environment,
            cwd=self._programs,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout + done.stderr

    def start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a program that stays."""
        return subprocess.Popen(
            [str(self._programs / program), *words], env=self._environment, cwd=self._programs
        )


def test_the_wheel_holds_all_packages_and_the_files_beside_them(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "fedtwin",
        "fedtwin_client",
        "fedtwin_protocol",
        "fedtwin_research",
        "fedtwin_server",
        "fedtwin_twins",
    }
    beside = {str(path.relative_to(ROOT / "cli")) for path in (ROOT / "cli").rglob("*.yaml")}
    assert len(beside) >= 4
    assert beside <= names
    assert not [name for name in names if name.endswith((".pem", ".key", ".sqlite", ".pyc"))]


def listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a process listens, or has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def play_coordinator(place: CleanVenv, folder: Path) -> None:
    """Set up, invite, run: all without torch."""
    assert "No module named 'torch'" in place.run("python", "-c", "import torch", status=1)
    assert "No module named 'duckdb'" in place.run("python", "-c", "import duckdb", status=1)
    home, port = ("--home", str(folder / "coordinator")), free_port()
    where = ("--address", "localhost", "--listen", "127.0.0.1", "--port", str(port))
    assert "is set up" in place.run(
        "fedtwin", "server", "init", "--consortium", "north", *where, *home
    )
    out = str(folder / "oslo.invitation")
    assert "invites site oslo" in place.run(
        "fedtwin", "server", "invite", "oslo", "--out", out, *home
    )
    process = place.start("fedtwin", "server", "run", *home)
    try:
        assert listens(port, process), "the coordinator does not listen"
        loaded = Path(f"/proc/{process.pid}/maps").read_text()
        assert "torch" not in loaded
        assert "grpc" in loaded
    finally:
        process.terminate()
        process.wait(20)
    plain = "import fedtwin_server.flower; from fedtwin.demo.synthetic import PLAN as plan"
    assert "True" in place.run("python", "-c", f"{plain}; print(plan.is_file())")


@pytest.mark.slow
def test_the_coordinator_runs_from_the_wheel_without_torch(wheel: Path, tmp_path: Path) -> None:
    place = CleanVenv(tmp_path / "venv")
    place.run("pip", "install", "--quiet", "--constraint", CONSTRAINTS, f"{wheel}[server]")
    play_coordinator(place, tmp_path)


@pytest.mark.slow
def test_an_installation_without_a_network(wheel: Path, tmp_path: Path) -> None:
    """As docs/hospital.md says it: download on one machine, carry over, install on the other."""
    carried = tmp_path / "carried"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--constraint", CONSTRAINTS]
    subprocess.run([*pip, "--dest", str(carried), f"{wheel}[server]"], check=True)
    assert (carried / wheel.name).exists()
    place = CleanVenv(tmp_path / "venv")
    there = ("--no-index", "--find-links", str(carried))
    place.run("pip", "install", "--quiet", *there, "fedtwin[server]")
    play_coordinator(place, tmp_path)
