"""Wrong input to a hospital's node: a sentence with status 2, and nothing is lost."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.node.policy import default_policy_text
from fedtwin_protocol.invitation import read_invitation, write_invitation

Type = Callable[..., Any]
AT_A_NODE = (
    ("client", "run"),
    ("client", "check"),
    ("client", "check", "--network"),
    ("client", "check", "--study", "x"),
    ("client", "studies"),
    ("client", "studies", "show", "x"),
    ("client", "studies", "accept", "x", "--by", "me"),
    ("client", "studies", "decline", "x", "--by", "me"),
    ("client", "ledger"),
    ("client", "left"),
    ("client", "report", "x"),
    ("client", "records", "fhir", "."),
)


@pytest.mark.parametrize("words", AT_A_NODE)
def test_a_folder_that_is_no_node(tmp_path: Path, refused: Type, words: tuple[str, ...]) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        said = refused(*words, "--home", folder).err
        assert f"there is no node in {folder}" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", AT_A_NODE)
def test_damaged_settings(node: Path, refused: Type, words: tuple[str, ...]) -> None:
    (node / "node.yaml").write_text("consortium: demo\nsite: a\ncoordinator: nowhere\n")
    assert "node.yaml cannot be used: coordinator: " in refused(*words, "--home", node).err
    (node / "node.yaml").write_bytes(b"\xff\x00")
    assert "node.yaml cannot be used" in refused(*words, "--home", node).err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("epsilon_per_study:", "epsilon_per_studie:"), "epsilon_per_studie: unknown key"),
        (("epsilon_lifetime: 8", "epsilon_lifetime: eight"), "epsilon_lifetime: "),
        (("when_allowed: ask", "when_allowed: maybe"), "when_allowed: "),
        (("rounds_largest: 1000", "rounds_largest: 1\nrounds_largest: 2"), "given twice"),
        (("questions: [risk]", "questions: [risk"), "is not YAML"),
        (("questions: [risk]", "questions: 2024-02-31"), "is not YAML"),
    ],
)
def test_a_policy_with_a_slip(
    node: Path, refused: Type, type_in: Type, change: tuple[str, str], says: str
) -> None:
    assert change[0] in default_policy_text()
    (node / "policy.yaml").write_text(default_policy_text().replace(*change))
    ended = refused("client", "policy", "--home", node)
    assert str(node / "policy.yaml") in ended.err
    assert says in ended.err
    checked = type_in("client", "check", "--home", node)
    assert checked.status == 1
    assert "FAIL policy" in checked.out


def test_a_new_policy_file_is_in_order(node: Path, type_in: Type) -> None:
    printed = type_in("client", "policy", "--default").out
    (node / "policy.yaml").write_text(printed)
    assert "is in order" in type_in("client", "policy", "--home", node).out


def test_a_damaged_database_of_studies(node: Path, refused: Type) -> None:
    (node / "node.sqlite").write_bytes(b"no database at all, and long enough to be read as one" * 9)
    said = refused("client", "studies", "--home", node).err
    assert f"{node / 'node.sqlite'} cannot be used" in said


def test_a_damaged_ledger(node: Path, refused: Type, type_in: Type) -> None:
    content = b"no database at all, and long enough to be read as one" * 9
    (node / "ledger.sqlite").write_bytes(content)
    (node / "ledger.sqlite").chmod(0o600)
    assert "ledger" in refused("client", "ledger", "--home", node).err
    checked = type_in("client", "check", "--home", node)
    assert (checked.status, "FAIL ledger" in checked.out) == (1, True)
    assert (node / "ledger.sqlite").read_bytes() == content


def test_an_unknown_study_names_those_that_are_known(node: Path, refused: Type) -> None:
    said = refused("client", "studies", "show", "unheard-of", "--home", node).err
    assert "it knows: none yet" in said


def test_a_date_that_is_none(node: Path, refused: Type) -> None:
    assert "2026-11-01" in refused("client", "left", "--since", "yesterday", "--home", node).err


def test_an_option_before_the_command_it_is_for(node: Path, type_in: Type) -> None:
    """It would be passed over, and the command would look into another folder."""
    ended = type_in("client", "studies", "--home", node, "show", "x")
    assert ended.status == 2
    assert "write --home after 'show'" in ended.err


def test_a_level_of_logging_that_is_none(node: Path, type_in: Type) -> None:
    ended = type_in("client", "run", "--home", node, "--log-level", "loud")
    assert ended.status == 2
    assert "'debug', 'info', 'warning', 'error'" in ended.err


@pytest.fixture
def invitation(coordinator: Path, tmp_path: Path, type_in: Type) -> Path:
    path = tmp_path / "st-olav.invitation"
    words = ("server", "invite", "st-olav", "--home", coordinator, "--out", path)
    assert type_in(*words).status == 0
    return path


@pytest.mark.parametrize("party", ["client", "research"])
def test_an_invitation_that_is_absent_open_or_damaged(
    invitation: Path, tmp_path: Path, refused: Type, party: str
) -> None:
    def enrol(path: Path) -> str:
        return str(refused(party, "enrol", "--invitation", path, "--home", tmp_path / "new").err)

    assert "there is no invitation at" in enrol(tmp_path / "absent.invitation")
    assert "Is a directory" in enrol(tmp_path)
    whole = invitation.read_bytes()
    for damaged in (
        whole[:500],
        b"",
        b"\x00\xff" * 90,
        whole.replace(b'"secret":"', b'"secret":"A'),
    ):
        invitation.write_bytes(damaged)
        said = enrol(invitation)
        assert "is no whole invitation" in said
    invitation.write_bytes(whole)
    invitation.chmod(0o644)
    assert "chmod 600" in enrol(invitation)


def test_an_expired_invitation(invitation: Path, tmp_path: Path, refused: Type) -> None:
    now = datetime.now(UTC)
    found = read_invitation(invitation, now)
    write_invitation(invitation, found.model_copy(update={"expires": now - timedelta(minutes=1)}))
    said = refused("client", "enrol", "--invitation", invitation, "--home", tmp_path / "new").err
    assert "expired at" in said
    assert "ask demo for a new one" in said


def test_an_invitation_for_the_other_role(
    invitation: Path, coordinator: Path, tmp_path: Path, refused: Type, type_in: Type
) -> None:
    said = refused("research", "enrol", "--invitation", invitation, "--home", tmp_path / "r").err
    assert "invites a site: use 'fedtwin client enrol'" in said
    ada = tmp_path / "ada.invitation"
    words = ("server", "invite", "ada", "--role", "researcher", "--out", ada)
    assert type_in(*words, "--home", coordinator).status == 0
    said = refused("client", "enrol", "--invitation", ada, "--home", tmp_path / "n").err
    assert "invites a researcher: use 'fedtwin research enrol'" in said


@pytest.mark.parametrize("party", ["client", "research"])
def test_a_coordinator_that_does_not_answer(
    invitation: Path, coordinator: Path, tmp_path: Path, refused: Type, type_in: Type, party: str
) -> None:
    path = invitation
    if party == "research":
        path = tmp_path / "ada.invitation"
        words = ("server", "invite", "ada", "--role", "researcher", "--out", path)
        assert type_in(*words, "--home", coordinator).status == 0
    said = refused(party, "enrol", "--invitation", path, "--home", tmp_path / "new").err
    assert "localhost:1" in said
    assert "reached" in said
    assert list(tmp_path.glob("library/trust/*")) == []


@pytest.mark.parametrize("party", ["client", "research"])
def test_a_home_that_cannot_be_written_spends_no_invitation(
    invitation: Path, coordinator: Path, tmp_path: Path, refused: Type, type_in: Type, party: str
) -> None:
    path = invitation
    if party == "research":
        path = tmp_path / "ada.invitation"
        words = ("server", "invite", "ada", "--role", "researcher", "--out", path)
        assert type_in(*words, "--home", coordinator).status == 0
    said = refused(party, "enrol", "--invitation", path, "--home", "/proc/fedtwin").err
    assert "cannot write /proc/fedtwin/identity" in said  # before anything is dialled


def test_the_folder_of_another_site(invitation: Path, node: Path, refused: Type) -> None:
    text = (node / "node.yaml").read_text()
    (node / "node.yaml").write_text(text.replace("st-olav", "ulleval"))
    said = refused("client", "enrol", "--invitation", invitation, "--home", node).err
    assert f"{node} is the node of ulleval in demo" in said
    assert "ulleval" in (node / "node.yaml").read_text()
