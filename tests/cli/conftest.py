"""Typing a command in this process; a coordinator, a node and a release to type at."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import fedtwin.demo
from fedtwin.main import main
from fedtwin_client.node.policy import default_policy_text
from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.card_writing import RunFacts, write_card
from fedtwin_protocol.payload import Array
from fedtwin_protocol.release import build_release, sign_release
from fedtwin_protocol.signing import PLAN_TYPE, TrustRoot, public_key, sign
from fedtwin_protocol.study import StudyPlan, plan_from_yaml

PLANS = Path(fedtwin.demo.__file__).parent / "plans"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Type = Callable[..., Ended]


@pytest.fixture(autouse=True)
def nothing_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write nowhere but below the test's folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FEDTWIN_RELEASES", str(tmp_path / "library"))


@pytest.fixture
def type_in(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """Type `fedtwin …`; returns status, output and error."""

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["fedtwin", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return Ended(status=status, out=said.out, err=said.err)

    return run


@pytest.fixture
def refused(type_in: Type) -> Type:
    """Type something wrong: it must end with status 2 and a sentence, without a traceback."""

    def run(*words: object) -> Ended:
        ended = type_in(*words)
        assert ended.status == 2, ended
        assert ended.err.startswith("fedtwin: "), ended.err
        assert "Traceback" not in ended.err
        assert "pydantic" not in ended.err
        return ended

    return run


@pytest.fixture(scope="session")
def new_coordinator() -> Callable[[Path], Path]:
    """Set a coordinator with two signers up; it is not running."""

    def make(folder: Path) -> Path:
        words = ["server", "init", "--home", str(folder), "--consortium", "demo"]
        words += ["--address", "localhost", "--signer", "one", "--signer", "two"]
        before, sys.argv = sys.argv, ["fedtwin", *words, "--threshold", "2", "--port", "1"]
        with pytest.raises(SystemExit) as ended:
            main()
        sys.argv = before
        assert not ended.value.code
        return folder

    return make


@pytest.fixture
def coordinator(tmp_path: Path, new_coordinator: Callable[[Path], Path]) -> Path:
    """The folder of a coordinator that is not running."""
    return new_coordinator(tmp_path / "coordinator")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The folder of a node that was enrolled with a coordinator that is gone."""
    folder = tmp_path / "node"
    folder.mkdir(mode=0o700)
    settings = {"consortium": "demo", "site": "st-olav", "coordinator": "localhost:1"}
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    (folder / "policy.yaml").write_text(default_policy_text())
    return folder


@dataclass(frozen=True)
class Published:
    """A release in a folder, and the root it is verified against."""

    folder: Path
    trust: Path


@pytest.fixture
def published(tmp_path: Path) -> Published:
    """A release of the synthetic study, signed by two, whose model is all zeros."""
    plan = plan_from_yaml(PLANS / "synthetic.yaml")
    arrays = {"weights": np.zeros(len(plan.contract.columns)), "intercept": np.zeros(1)}
    return publish(tmp_path, plan, arrays)


def publish(place: Path, plan: StudyPlan, arrays: Mapping[str, Array]) -> Published:
    """A release of a plan, signed by two, in a folder below the place."""
    keys = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
    trust = TrustRoot(
        consortium="demo", keys=tuple(public_key(key, "signer") for key in keys), threshold=2
    )
    now = datetime(2026, 3, 1, tzinfo=UTC)
    facts = RunFacts(patients={"a": 500.0}, rounds_used={"a": 1}, rounds=1, created=now)
    envelope = sign(PLAN_TYPE, plan.to_bytes(), keys)
    files = sign_release(build_release(arrays, write_card(plan, facts), envelope, now), keys, trust)
    folder = place / "release"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    path = place / "trust.json"
    path.write_bytes(canonical_bytes(trust.model_dump(mode="json")))
    return Published(folder=folder, trust=path)
