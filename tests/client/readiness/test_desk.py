"""Sharing is charged first, and refused where there is no budget; what is kept is encrypted."""

from __future__ import annotations

import json
from datetime import timedelta
from math import sqrt
from pathlib import Path

import pytest
import yaml

from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.ledger_explain import explain_sharing
from fedtwin_client.node.policy import load_policy
from fedtwin_client.node.sealing import make_keys, make_secret, rotate
from fedtwin_client.readiness import shared
from fedtwin_client.readiness.counts import Report
from fedtwin_client.readiness.measures import measure
from fedtwin_client.readiness_desk import find_plan, keep, look, share, speak
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.timeline import Timeline
from fedtwin_client.training.accounting import epsilon_of
from fedtwin_protocol.errors import BudgetError, CohortError, ConfigurationError, PlanError

from .conftest import NOW, made_events, plan, store


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> NodeHome:
    """A node whose files are encrypted, with records and something put aside."""
    home = NodeHome(folder=tmp_path_factory.mktemp("filled") / "node")
    home.folder.mkdir()
    home.settings_file.write_text("consortium: tests\nsite: aal\ncoordinator: here:1\n")
    home.policy_file.write_text("consent: opt_out\nsmallest_cohort: 20\n")
    make_keys(home)
    make_secret(home, None)
    store(home.records, made_events())
    return home


@pytest.fixture
def home(filled: NodeHome) -> NodeHome:
    """The same without a ledger."""
    for path in filled.folder.glob("ledger*"):
        path.unlink()
    filled.policy_file.write_text("consent: opt_out\nsmallest_cohort: 20\n")
    return filled


def test_the_charge_is_on_disk_before_noise_is_drawn_and_is_what_the_file_says(
    home: NodeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = shared.sharable

    def watched(made, asked, now, price, source, smallest):
        with Ledger(home.ledger_file) as book:
            account = book.account("readiness-of-readiness-tests")
            seen.append(account.made.get("readiness", 0))
        assert price[0] * sqrt(made.most) > 1
        return real(made, asked, now, price, source, smallest)

    monkeypatch.setattr(shared, "sharable", watched)
    path = tmp_path / "out.json"
    charged, entry = share(home, plan(), 1.0, NOW, path)
    assert seen == [1]
    value = json.loads(path.read_text())
    assert value["privacy"]["epsilon"] == charged <= 1.0
    assert charged > 0.99
    with Ledger(home.ledger_file) as book:
        account = book.account("readiness-of-readiness-tests")
        statement = book.statement(load_policy(home.policy_file).limits, epsilon_of)
        assert book.members(account.reservation.plan_hash) is not None
    assert not account.open
    assert entry == 2
    assert plan().privacy.hospitals_per_patient == 2
    sigma = account.reservation.allotments[0].mechanism.sigma
    most = 1 + 2 * 4 + 5 * 2
    assert value["privacy"]["noise_sd"] == pytest.approx(2 * sigma * sqrt(most))
    assert statement.epsilon_pld == pytest.approx(1.0, rel=0.01)
    assert any("was written" in line for line in explain_sharing(account))


def test_the_noise_is_larger_where_patients_are_seen_at_several_hospitals(
    home: NodeHome, tmp_path: Path
) -> None:
    sds = []
    for number, hospitals in enumerate((1, 3)):
        asked = plan(privacy__hospitals_per_patient=hospitals)
        path = tmp_path / f"{number}.json"
        charged, _ = share(home, asked, 0.3, NOW + timedelta(days=number), path)
        sds.append(json.loads(path.read_text())["privacy"]["noise_sd"])
        assert charged == pytest.approx(0.3, rel=0.01)
    assert sds[1] == pytest.approx(3 * sds[0])


def test_sharing_ends_when_the_lifetime_is_spent_and_nothing_is_written(
    home: NodeHome, tmp_path: Path
) -> None:
    home.policy_file.write_text("epsilon_lifetime: 2.5\nsmallest_cohort: 20\n")

    def share_until_refused() -> None:
        for number in range(20):
            path = tmp_path / f"{number}.json"
            share(home, plan(), 1.5, NOW + timedelta(hours=number), path)

    with pytest.raises(CohortError, match="whose budget has room for it"):
        share_until_refused()
    written = len(list(tmp_path.glob("*.json")))
    assert 1 <= written < 4
    with Ledger(home.ledger_file) as book:
        assert book.head()[0] == 3 * written


@pytest.mark.parametrize(
    ("epsilon", "policy", "error", "says"),
    [
        (5.0, "epsilon_per_study: 3\n", BudgetError, "epsilon_per_study 3"),
        (2.9, "epsilon_lifetime: 1\n", BudgetError, "alone would cost more"),
        (-1.0, "", ConfigurationError, "expected an epsilon above 0"),
        (float("nan"), "", ConfigurationError, "expected an epsilon above 0"),
        (0.5, "smallest_cohort: 151\n", CohortError, "151 patients or more"),
    ],
)
def test_what_may_not_be_shared_is_refused(
    home: NodeHome, tmp_path: Path, epsilon: float, policy: str, error: type[Exception], says: str
) -> None:
    home.policy_file.write_text(policy)
    with pytest.raises(error, match=says):
        share(home, plan(), epsilon, NOW, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
    if home.ledger_file.exists():
        with Ledger(home.ledger_file) as book:
            assert book.head()[0] == 0


def test_a_file_is_never_overwritten_and_a_lost_folder_costs_nothing(
    home: NodeHome, tmp_path: Path
) -> None:
    (tmp_path / "out.json").write_text("shared before")
    with pytest.raises(ConfigurationError, match="exists"):
        share(home, plan(), 0.5, NOW, tmp_path / "out.json")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        share(home, plan(), 0.5, NOW, tmp_path / "absent" / "out.json")
    assert (tmp_path / "out.json").read_text() == "shared before"
    assert not home.ledger_file.exists()


def test_whoever_objected_is_not_in_what_is_shared(
    home: NodeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[set[int]] = []
    real = shared.sharable

    def watched(made, *rest):
        used.append(set(made.subject_ids.tolist()))
        return real(made, *rest)

    monkeypatch.setattr(shared, "sharable", watched)
    everybody = set(shared.contributions(Timeline.open(home.records), plan(), NOW).subject_ids)
    out = set(sorted(everybody)[:7])
    with Consents(home.records) as consents:
        consents.add_objections([int(one) for one in out], NOW)
        share(home, plan(), 0.5, NOW, tmp_path / "out.json")
        for one in out:
            consents.lift(int(one))
    assert used == [{int(one) for one in everybody - out}]


def test_a_sharing_that_was_cut_off_does_not_stop_the_next(
    home: NodeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "close", lambda *_: None)
        share(home, plan(), 0.3, NOW, tmp_path / "1.json")
    share(home, plan(), 0.3, NOW + timedelta(hours=1), tmp_path / "2.json")
    with Ledger(home.ledger_file) as book:
        statement = book.statement(load_policy(home.policy_file).limits, None)
    assert [one.open for one in statement.studies] == [False, False]


@pytest.fixture(scope="module")
def report(filled: NodeHome) -> Report:
    return measure(Timeline.open(filled.records), plan(), NOW)


def test_what_is_kept_is_encrypted_and_follows_new_keys(home: NodeHome, report: Report) -> None:
    keep(home, report)
    said = speak(home, plan(), "glucose", "allow", "seen by hand", "Dr Planted", NOW)
    assert "is used whatever the gates say" in said
    path = home.folder / "readiness.sqlite"
    assert not any(
        mark in path.read_bytes() for mark in (b"SQLite format", b"Dr Planted", b"glucose")
    )
    rotate(home)
    found = look(home, plan())
    assert found is not None
    assert found.report == report
    assert found.words["glucose"].by == "Dr Planted"
    assert "glucose" not in [block.feature for block in found.blocks]


def test_a_word_needs_a_feature_a_reason_and_a_name(home: NodeHome) -> None:
    with pytest.raises(ConfigurationError, match="no feature 'sodium'"):
        speak(home, plan(), "sodium", "block", "x", "y", NOW)
    for because, by in (("", "Dr Berg"), ("seen", " ")):
        with pytest.raises(ConfigurationError, match="--because"):
            speak(home, plan(), "glucose", "block", because, by, NOW)


def test_a_plan_is_found_in_a_file_or_among_the_offered(home: NodeHome, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan().model_dump(mode="json")))
    (tmp_path / "plan.json").write_bytes(plan().to_bytes())
    for name in ("plan.yaml", "plan.json"):
        assert find_plan(home, str(tmp_path / name)).hash == plan().hash
    with pytest.raises(PlanError, match="cannot read the plan"):
        find_plan(home, str(tmp_path / "absent.yaml"))
    with pytest.raises(ConfigurationError, match="cannot read the plan"):
        find_plan(home, str(tmp_path / "absent.json"))
    with pytest.raises(ConfigurationError, match="no study 'absent' was offered"):
        find_plan(home, "absent")
