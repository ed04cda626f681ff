"""Audits by command: a release's, a draft's, a node's own; a failed one ends with status 1."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import fedtwin.auditing
import fedtwin_research.audits.repeat as repeating
from fedtwin_client.training import self_check
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_protocol.card_audits import audits_from_bytes
from fedtwin_protocol.parameters import initial_parameters
from fedtwin_protocol.study import StudyPlan

from .conftest import PLANS, Published, Type, publish


def test_a_release_is_audited_again(type_in: Type, published: Published, tmp_path: Path) -> None:
    results, page = tmp_path / "out" / "audits.json", tmp_path / "audits.html"
    ended = type_in(
        *("research", "audit", published.folder, "--trust", published.trust),
        *("--json", results, "--page", page, "--seed", 3),
    )
    assert ended.status == 0, ended
    for said in ("epsilon", "membership", "inversion", "one-run-bound", "cannot be repeated here"):
        assert said in ended.out
    assert "the card holds no audits" in ended.out
    file = audits_from_bytes(results.read_bytes(), "there")
    assert [one.name for one in file.audits] == [
        *("epsilon", "membership", "inversion", "one-run-bound"),
    ]
    assert all(one.passed and one.seed == 3 and one.by == "outside" for one in file.audits)
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_what_cannot_be_repeated_of_a_model_over_records_is_printed_and_in_the_page(
    type_in: Type, tmp_path: Path
) -> None:
    value = yaml.safe_load((PLANS / "synthetic.yaml").read_text())
    value["sequence"] = {"vocabulary": [{"code": "LOINC//2345-7"}]}
    value["model"] = {"family": "transformer", "width": 8, "heads": 2, "layers": 1}
    plan = StudyPlan.model_validate(value)
    published = publish(tmp_path, plan, initial_parameters(plan))
    page, results = tmp_path / "audits.html", tmp_path / "audits.json"
    ended = type_in(
        *("research", "audit", published.folder, "--trust", published.trust),
        *("--page", page, "--json", results),
    )
    assert ended.status == 0, ended
    for said in (ended.out, page.read_text()):
        assert "membership and inversion of a transformer" in " ".join(said.split())
    assert "<svg" not in page.read_text()
    file = audits_from_bytes(results.read_bytes(), "there")
    assert [one.name for one in file.audits] == ["epsilon", "one-run-bound"]


def test_the_same_seed_gives_the_same_figures(type_in: Type, published: Published) -> None:
    words = ("research", "audit", published.folder, "--trust", published.trust, "--seed", 9)
    assert type_in(*words).out == type_in(*words).out


def test_a_failed_audit_ends_with_status_1(
    type_in: Type, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learning that forgets the noise: many more members are found than epsilon 1 allows."""
    learn = repeating.learn_as_planned
    monkeypatch.setattr(
        repeating,
        "learn_as_planned",
        lambda plan, family, pool, seed: learn(plan, family, pool, seed, noised=False),
    )
    ended = type_in("research", "audit", published.folder, "--trust", published.trust)
    assert ended.status == 1
    assert "FAIL" in ended.out


def test_a_draft_is_audited_unsigned(type_in: Type, published: Published, tmp_path: Path) -> None:
    (published.folder / "statement.json").unlink()
    ended = type_in("research", "audit", published.folder, "--draft")
    assert ended.status == 0
    assert "nobody has signed it" in ended.out


def test_what_is_no_draft_is_refused(refused: Type, tmp_path: Path) -> None:
    assert "server release STUDY" in refused("research", "audit", tmp_path, "--draft").err
    refused("research", "audit", "no-such-study")


def test_figures_of_a_card_are_compared_with_the_repeated(published: Published) -> None:
    file = audits_from_bytes(_some_audits(published, 0.012), "there")
    again = audits_from_bytes(_some_audits(published, 0.0121), "there")
    other = audits_from_bytes(_some_audits(published, 0.02), "there")
    compare = fedtwin.auditing.unlike_the_card
    assert compare(file.audits, again.audits, 1) == []
    assert "the card says 0.012 of 'membership'" in compare(file.audits, other.audits, 1)[0]
    assert compare(file.audits, other.audits, 2) == []


def _some_audits(published: Published, result: float) -> bytes:
    audit = {
        "name": "membership",
        "asks": "a",
        "result": result,
        "threshold": 0.03,
        "passed": True,
        "reading": "r",
        "by": "outside",
        "performed": "2026-03-01T00:00:00Z",
        "software": "fedtwin 0",
        "seed": 1,
    }
    head = {"study": "s", "version": 1, "plan_hash": "0" * 64}
    return json.dumps({**head, "audits": [audit]}).encode()


def with_sites(folder: Path) -> Path:
    """The heart study's plan with four hospitals named, as it is signed."""
    value = yaml.safe_load((PLANS / "heart-disease.yaml").read_text())
    value["sites"]["invited"] = ["a", "b", "c", "d"]
    path = folder / "with-sites.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


def test_a_node_checks_its_own_privacy(type_in: Type, tmp_path: Path) -> None:
    results = tmp_path / "self.json"
    words = ("client", "check", "--privacy", "--plan", with_sites(tmp_path))
    ended = type_in(*words, "--json", results)
    assert ended.status == 0, ended
    file = audits_from_bytes(results.read_bytes(), "there")
    assert [one.name for one in file.audits] == [
        *("independence", "moments-update", "moments-count", "moments-table", "moments-vote"),
    ]
    assert file.model_sha256 is None
    assert {one.by for one in file.audits} == {"site software"}


def test_a_node_with_too_little_noise_fails_its_check(
    type_in: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quieter(plan: Any, rows: Any, key: bytes) -> BuiltIn:
        privacy = plan.privacy.model_copy(
            update={"noise_multiplier": plan.privacy.noise_multiplier / 1.25}
        )
        return BuiltIn(plan.model_copy(update={"privacy": privacy}), rows, key)

    check = self_check.check_privacy
    monkeypatch.setattr(self_check, "check_privacy", lambda plan, seed: check(plan, seed, quieter))
    ended = type_in("client", "check", "--privacy", "--plan", with_sites(tmp_path))
    assert ended.status == 1
    assert "FAIL" in ended.out


def test_a_check_of_privacy_needs_a_mechanism(refused: Type, node: Path, tmp_path: Path) -> None:
    assert "--study NAME" in refused("client", "check", "--privacy", "--home", node).err
    refused("client", "check", "--privacy", "--study", "none-such", "--home", node)
    plan = yaml.safe_load((PLANS / "synthetic.yaml").read_text())
    plan["model"] = {"family": "their_own", "initial_sha256": "0" * 64}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    ended = refused("client", "check", "--privacy", "--plan", tmp_path / "plan.yaml")
    assert "not built in" in ended.err
