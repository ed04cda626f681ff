"""A whole consortium as real processes on this machine: a coordinator, sites, a researcher.

Everything goes through the same commands that people type; the demo only types them.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fedtwin_protocol.errors import ConfigurationError

SIGNERS: Final = ("first-signer", "second-signer")
START_PATIENCE_S: Final = 20.0


@dataclass(kw_only=True)
class LocalConsortium:
    """Processes and folders of a consortium under one folder.

    Attributes:
        folder: where everything is written.
        name: the consortium's.
        processes: what runs.
    """

    folder: Path
    name: str = "demo"
    port: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def server(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    def site(self, name: str) -> Path:
        """A site's folder."""
        return self.folder / name

    @property
    def keys(self) -> list[str]:
        """`--key` options for both signers."""
        offline = self.server / "offline"
        return [word for signer in SIGNERS for word in ("--key", str(offline / f"{signer}.key"))]

    def run(self, *words: str) -> str:
        """Type a command and wait for it.

        Raises:
            ConfigurationError: it failed; with what it said.
        """
        done = subprocess.run(
            [sys.executable, "-m", "fedtwin.main", *words],
            capture_output=True,
            text=True,
            env=self._environment(),
            check=False,
        )
        if done.returncode != 0:
            raise ConfigurationError(
                f"'fedtwin {' '.join(words[:3])} …' failed: {done.stderr.strip()[-2000:]}"
            )
        return done.stdout

    def start(self, log: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a command that stays; its log goes to `<log>.log`."""
        with (self.folder / f"{log}.log").open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "fedtwin.main", *words],
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                env=self._environment(),
            )
        self.processes.append(process)
        return process

    def open(self, *options: str) -> None:
        """Set the coordinator up and start it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        signers = [word for signer in SIGNERS for word in ("--signer", signer)]
        self.run(
            *("server", "init", "--home", str(self.server), "--consortium", self.name),
            *("--address", "localhost", "--address", "127.0.0.1", "--listen", "127.0.0.1"),
            *("--port", str(self.port), "--threshold", "2", *signers, *options),
        )
        self.start_server()

    def start_server(self) -> subprocess.Popen[bytes]:
        """Start the coordinator and wait until it listens."""
        process = self.start("coordinator", "server", "run", "--home", str(self.server))
        deadline = time.monotonic() + START_PATIENCE_S
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return process
            time.sleep(0.02)
        log = (self.folder / "coordinator.log").read_text()[-1000:]
        raise ConfigurationError(f"the coordinator did not start: {log}")

    def enrol(self, name: str, policy: Sequence[tuple[str, str]] = ()) -> None:
        """Invite and enrol a site; `policy` changes lines of its policy file."""
        invitation = self.folder / f"{name}.invitation"
        home = self.site(name)
        self.run("server", "invite", name, "--home", str(self.server), "--out", str(invitation))
        self.run("client", "enrol", "--invitation", str(invitation), "--home", str(home))
        path = home / "policy.yaml"
        text = path.read_text()
        for key, value in policy:
            text = re.sub(rf"(?m)^{key}:.*$", f"{key}: {value}", text)
        path.write_text(text)

    def start_site(self, name: str) -> subprocess.Popen[bytes]:
        """Start a site's node."""
        return self.start(name, "client", "run", "--home", str(self.site(name)))

    def close(self) -> None:
        """End every process; another Ctrl-C meanwhile does not leave some behind."""
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                self._end_all()
            finally:
                signal.signal(signal.SIGINT, before)
        else:
            self._end_all()

    def _end_all(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def __enter__(self) -> "LocalConsortium":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "FEDTWIN_RELEASES": str(self.folder / "library"), "COLUMNS": "200"}


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
