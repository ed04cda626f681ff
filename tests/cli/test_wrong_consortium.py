"""Wrong input to the coordinator's commands: a sentence with status 2, and nothing is changed."""

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import fedtwin.demo
from fedtwin_server.coordinator import Home

Type = Callable[..., Any]
PLANS = Path(fedtwin.demo.__file__).parent / "plans"
AT_A_COORDINATOR = (
    ("server", "run"),
    ("server", "sites"),
    ("server", "studies"),
    ("server", "studies", "show", "x"),
    ("server", "studies", "stop", "x"),
    ("server", "studies", "add", str(PLANS / "synthetic.yaml"), "--key", "x"),
    ("server", "invite", "st-olav"),
    ("server", "revoke", "st-olav"),
    ("server", "release", "x", "--key", "x"),
)


def local_plan(folder: Path) -> Path:
    """The synthetic study in mode `local`, which needs no site by name."""
    path = folder / "local.yaml"
    text = (PLANS / "synthetic.yaml").read_text()
    path.write_text(text.replace("mode: secure", "mode: local"))
    return path


@pytest.mark.parametrize("words", AT_A_COORDINATOR)
def test_a_folder_that_is_no_coordinator(
    tmp_path: Path, refused: Type, words: tuple[str, ...]
) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        said = refused(*words, "--home", folder).err
        assert f"there is no coordinator in {folder}" in said
    assert [path.name for path in tmp_path.iterdir()] in ([], ["coordinator.lock"])


@pytest.mark.parametrize("words", AT_A_COORDINATOR)
def test_damaged_settings(coordinator: Path, refused: Type, words: tuple[str, ...]) -> None:
    with (coordinator / "coordinator.yaml").open("a") as file:
        file.write("colour: red\n")
    assert "colour: unknown key" in refused(*words, "--home", coordinator).err


@pytest.mark.parametrize("words", [*AT_A_COORDINATOR[1:5], *AT_A_COORDINATOR[6:]])
def test_a_damaged_store(coordinator: Path, refused: Type, words: tuple[str, ...]) -> None:
    (coordinator / "fedtwin.sqlite").write_bytes(b"no database at all" * 99)
    assert "fedtwin.sqlite cannot be used" in refused(*words, "--home", coordinator).err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--consortium", "Heart North"), "expected a consortium's name"),
        (("--address", "fed.example.org:8443"), "without a port"),
        (("--signer", "oslo", "--threshold", "2"), "cannot be met by 1 signers"),
        (("--signer", "oslo", "--signer", "oslo"), "named twice"),
        (("--signer", "../oslo"), "expected a signer's name"),
        (("--port", "99999"), "99999 is not in the range"),
        (("--certificate-hours", "0"), "0.0 is not in the range"),
        (("--threshold", "0"), "0 is not in the range"),
    ],
)
def test_a_set_up_that_does_not_fit_writes_nothing(
    tmp_path: Path, type_in: Type, options: tuple[str, ...], says: str
) -> None:
    home = tmp_path / "new"
    needed = {"--consortium": "demo", "--address": "localhost"}
    rest = [word for name, value in needed.items() if name not in options for word in (name, value)]
    ended = type_in("server", "init", "--home", home, *rest, *options)
    assert ended.status == 2
    assert says in ended.err
    assert "Traceback" not in ended.err
    assert not home.exists()


def test_a_coordinator_is_never_set_up_twice(coordinator: Path, refused: Type) -> None:
    before = {path: path.read_bytes() for path in coordinator.rglob("*") if path.is_file()}
    words = ("server", "init", "--consortium", "other", "--address", "localhost")
    assert "holds a coordinator already" in refused(*words, "--home", coordinator).err
    assert {path: path.read_bytes() for path in before} == before


def test_a_home_that_cannot_be_written(refused: Type) -> None:
    words = ("server", "init", "--consortium", "demo", "--address", "localhost")
    assert "cannot write /proc/fedtwin" in refused(*words, "--home", "/proc/fedtwin").err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("invite", "St Olav"), "expected a name of"),
        (("invite", "st-olav", "--out", "st-olav.txt"), "ends in .invitation"),
        (("invite", "st-olav", "--hours", "999"), "at most 14 days"),
        (("invite", "st-olav", "--out", "/proc/x/st-olav.invitation"), "cannot write /proc/x"),
        (("revoke", "nobody"), "no site 'nobody' was ever invited here: is it misspelt?"),
        (("revoke", "nobody", "--role", "researcher"), "no researcher 'nobody'"),
        (("studies", "show", "nothing"), "there is no study 'nothing' here"),
        (("studies", "stop", "nothing"), "there is no study 'nothing' here"),
        (("release", "nothing", "--key", "x"), "there is no study 'nothing' here"),
    ],
)
def test_names_and_places_that_are_wrong(
    coordinator: Path, refused: Type, words: tuple[str, ...], says: str
) -> None:
    assert says in refused("server", *words, "--home", coordinator).err


def test_the_issuing_authority_is_renewed_with_its_own_root_and_no_other(
    coordinator: Path,
    tmp_path: Path,
    refused: Type,
    type_in: Type,
    new_coordinator: Callable[[Path], Path],
) -> None:
    other = new_coordinator(tmp_path / "other")
    before = (coordinator / "authority" / "credentials.pem").read_bytes()
    renew = ("server", "renew", "--home", coordinator, "--offline")
    assert "there is no root key" in refused(*renew, tmp_path).err
    assert "is not the root of demo" in refused(*renew, other / "offline").err
    assert (coordinator / "authority" / "credentials.pem").read_bytes() == before
    assert "is renewed until" in type_in(*renew, coordinator / "offline").out
    assert (coordinator / "authority" / "credentials.pem").read_bytes() != before
    invite = ("server", "invite", "st-olav", "--home", coordinator)
    assert type_in(*invite, "--out", tmp_path / "a.invitation").status == 0


def a_plan(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    value = yaml.safe_load((PLANS / "synthetic.yaml").read_text())
    change(value)
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def keys(coordinator: Path, *names: str) -> list[str]:
    return [
        word for name in names for word in ("--key", str(coordinator / "offline" / f"{name}.key"))
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda plan: plan.update(colour="red"), "colour: unknown key"),
        (lambda plan: plan["training"].update(epochs=3), "training.epochs: unknown key"),
        (lambda plan: plan.pop("endpoint"), "endpoint: is missing"),
        (lambda plan: plan["privacy"].pop("epsilon"), "privacy.epsilon: is missing"),
        (lambda plan: plan["features"][2].pop("plausible"), "needs a plausible range"),
        (lambda plan: plan["features"].append(plan["features"][0]), "named twice: age"),
        (
            lambda plan: plan["privacy"].update(noise_multiplier=5.0),
            "noise_multiplier 5 makes epsilon 2.884, not 1: 13.16 would do",
        ),
        (
            lambda plan: plan["privacy"].update(evaluation_noise=1.0),
            "evaluation_noise 1 makes epsilon 4.459 for held-out patients, not 1: 5.042 would do",
        ),
        (lambda plan: plan["privacy"].update(cohort_count_noise=1.0), "raise it first"),
        (lambda plan: plan["privacy"].update(epsilon=float("nan")), "privacy.epsilon: "),
        (lambda plan: plan.update(consortium="other"), "a plan of other"),
        (lambda plan: plan.update(expires="2020-01-01T00:00:00Z"), "expired on 2020-01-01"),
        (lambda plan: plan["training"].update(average_last=99), "average_last 99 exceeds rounds"),
    ],
)
def test_a_plan_that_does_not_add_up(
    coordinator: Path,
    tmp_path: Path,
    refused: Type,
    change: Callable[[dict[str, Any]], object],
    says: str,
) -> None:
    words = ("server", "studies", "add", a_plan(tmp_path, change), "--home", coordinator)
    assert says in refused(*words, *keys(coordinator, "one", "two")).err
    assert Home(folder=coordinator).store().studies() == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read the plan"),
        (b"", "holds no plan"),
        (b"- a\n- b\n", "holds no plan"),
        (b"study: [\n", "is not YAML"),
        (b"\xff\xfe\x00\x01", "is not YAML"),
        (b"study: a\nstudy: b\n", "the key 'study' is given twice"),
        (b"expires: 2024-02-31\n", "is not YAML"),
    ],
)
def test_a_plan_file_that_is_none(
    coordinator: Path, tmp_path: Path, refused: Type, content: bytes | None, says: str
) -> None:
    path = tmp_path / "plan.yaml"
    if content is not None:
        path.write_bytes(content)
    words = ("server", "studies", "add", path, "--home", coordinator)
    assert says in refused(*words, *keys(coordinator, "one", "two")).err
    assert says in refused("server", "plan", "check", path).err


def test_a_family_that_nobody_has_is_refused_with_those_that_are_built_in(
    tmp_path: Path, refused: Type
) -> None:
    path = tmp_path / "plan.yaml"
    text = (PLANS / "synthetic.yaml").read_text()
    path.write_text(text.replace("family: logistic_regression", "family: poisson"))
    said = refused("server", "plan", "check", path).err
    assert "model family 'poisson' is not built in" in said
    assert "poisson_regression" in said


def test_a_plan_is_checked_and_priced_before_it_is_signed(tmp_path: Path, type_in: Type) -> None:
    whole = type_in("server", "plan", "check", PLANS / "synthetic.yaml")
    assert whole.status == 0
    assert "WHAT LEAVES THE HOSPITAL" in whole.out
    assert "the plan adds up" in whole.out
    short = a_plan(tmp_path, lambda plan: plan["privacy"].update(noise_multiplier=5.0))
    ended = type_in("server", "plan", "check", short)
    assert ended.status == 1
    assert "13.16 would do" in ended.out
    mended = a_plan(tmp_path, lambda plan: plan["privacy"].update(noise_multiplier=13.16))
    assert type_in("server", "plan", "check", mended).status == 0


def sampled(plan: dict[str, Any]) -> None:
    plan["model"] = {"family": "network", "hidden": [8]}
    plan["training"] = {"mechanism": "local_steps", "rounds": 2, "learning_rate": 0.1}
    plan["training"]["local_steps"] = 5
    plan["aggregation"] = {"rule": "mean"}
    plan["privacy"].update(mode="local", sampling_rate=0.1, noise_multiplier=0.7)


def test_a_plan_that_samples_patients_is_priced_with_the_nodes_accountant(
    tmp_path: Path, type_in: Type, refused: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = type_in("server", "plan", "check", a_plan(tmp_path, sampled))
    assert ended.status == 1
    enough = float(ended.out.partition("not 1: ")[2].partition(" would do")[0])

    def mend(plan: dict[str, Any]) -> None:
        sampled(plan)
        plan["privacy"]["noise_multiplier"] = enough

    assert type_in("server", "plan", "check", a_plan(tmp_path, mend)).status == 0
    monkeypatch.setattr("fedtwin.plan_check._accountant_is_here", lambda: False)
    assert (
        "pip install 'fedtwin[client]'"
        in refused("server", "plan", "check", a_plan(tmp_path, sampled)).err
    )


def test_signers(
    coordinator: Path,
    tmp_path: Path,
    refused: Type,
    new_coordinator: Callable[[Path], Path],
) -> None:
    """Too few, strangers, and files that hold no key."""
    add = ("server", "studies", "add", local_plan(tmp_path), "--home", coordinator)
    assert (
        "expected 2 signatures of demo's 2 signers, found 1 (one)"
        in refused(*add, *keys(coordinator, "one")).err
    )
    assert "found 1 (one)" in refused(*add, *keys(coordinator, "one", "one")).err
    other = new_coordinator(tmp_path / "other")
    assert "found 0 (none)" in refused(*add, *keys(other, "one", "two")).err
    assert "cannot read the signing key" in refused(*add, "--key", tmp_path / "absent").err
    assert (
        "holds no unencrypted PEM private key"
        in refused(*add, "--key", PLANS / "synthetic.yaml").err
    )
    assert (
        "a key of another kind" in refused(*add, "--key", coordinator / "offline" / "root.key").err
    )
    assert Home(folder=coordinator).store().studies() == []


def test_a_secure_study_needs_sites_that_have_enrolled(coordinator: Path, refused: Type) -> None:
    add = ("server", "studies", "add", PLANS / "synthetic.yaml", "--home", coordinator)
    said = refused(*add, *keys(coordinator, "one", "two")).err
    assert "enrol at least 3 hospitals" in said


def test_releasing_a_study_that_is_not_finished(
    coordinator: Path, tmp_path: Path, refused: Type, type_in: Type
) -> None:
    two = keys(coordinator, "one", "two")
    add = ("server", "studies", "add", local_plan(tmp_path), "--home", coordinator)
    assert type_in(*add, *two).status == 0
    said = refused("server", "release", "coronary-risk-5y", "--home", coordinator, *two).err
    assert "is open" in said
    assert "only a finished study can be released" in said
    assert "already" in refused(*add, *two).err
    stop = ("server", "studies", "stop", "coronary-risk-5y", "--home", coordinator)
    assert type_in(*stop).status == 0
    assert "is stopped already" in refused(*stop).err
    assert Home(folder=coordinator).store().study("coronary-risk-5y").status == "stopped"


def test_a_second_coordinator_on_one_folder(coordinator: Path) -> None:
    """A process of its own, because a running coordinator takes standard error over."""
    words = [sys.executable, "-m", "fedtwin.main", "server", "run", "--home", str(coordinator)]
    with (coordinator / "coordinator.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert f"another coordinator runs on {coordinator} already" in done.stderr
