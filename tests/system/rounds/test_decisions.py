"""A hospital decides: asked first, left in the middle, refused with a reason that stays there."""

import base64
import json
from typing import Any

import pytest
import yaml

from fedtwin_protocol.signing import PLAN_TYPE, envelope_from_bytes, load_signing_key, sign

SITES = ("aal", "bergen", "cork")


def set_policy(hospitals: Any, name: str, key: str, value: Any) -> None:
    path = hospitals.site(name).policy_file
    policy = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**policy, key: value}))


def decide(hospitals: Any, name: str, study: str, word: str) -> None:
    home = str(hospitals.site(name).folder)
    hospitals.consortium.run("client", "studies", word, study, "--by", "Dr A. Berg", "--home", home)


def test_a_study_is_held_until_a_person_accepts(hospitals: Any) -> None:
    """Until then nothing about it leaves the hospital; then it takes part."""
    plan = hospitals.plan("asked", sites__quorum=3)
    set_policy(hospitals, "aal", "when_allowed", "ask")
    try:
        hospitals.open(plan)
        hospitals.wait_until(
            lambda: "study asked: the policy says ask" in hospitals.log("aal"), 30, "the question"
        )
        hospitals.wait_until(
            lambda: set(hospitals.store.decisions("asked")) == {"bergen", "cork"}, 30, "the others"
        )
        assert hospitals.store.study("asked").status == "open"
        assert not [item for item in hospitals.left("aal") if item.study == "asked"]
        decide(hospitals, "aal", "asked", "accept")
        hospitals.wait_end("asked")
        assert hospitals.state("asked") == "finished: "
        assert {closed.sites for closed in hospitals.store.rounds("asked")} == {SITES}
    finally:
        set_policy(hospitals, "aal", "when_allowed", "accept")


def test_a_hospital_leaves_in_the_middle(hospitals: Any) -> None:
    """No task reaches it afterwards, and what it had reserved and not used is given back."""
    plan = hospitals.plan("left-early", training__rounds=400)
    hospitals.open(plan)
    hospitals.wait_until(lambda: hospitals.rounds("left-early") >= 3, 60, "rounds")
    decide(hospitals, "cork", "left-early", "decline")
    hospitals.wait_end("left-early")
    assert hospitals.state("left-early") == "finished: "
    sites = [closed.sites for closed in hospitals.store.rounds("left-early")]
    assert sites[0] == SITES
    assert sites[-1] == ("aal", "bergen"), "the study was over before the hospital left"
    hospitals.wait_until(
        lambda: not hospitals.ledger("cork", "left-early").open, 20, "the budget to be given back"
    )
    account = hospitals.ledger("cork", "left-early")
    used = sum("cork" in taking_part for taking_part in sites)
    assert used <= account.made["train"] <= used + 1
    assert account.charged_curve() < account.reserved_curve()
    departures = [item.kind for item in hospitals.left("cork") if item.study == "left-early"]
    assert departures[-1] in {"decision", "answer"}
    assert departures.index("decision") == 0


def test_every_message_is_in_the_list_of_what_left(hospitals: Any) -> None:
    """A decision, a count, an answer a round, a table: no more and no less, in words."""
    plan = hospitals.plan("listed")
    hospitals.open(plan)
    hospitals.wait_end("listed")
    for name in SITES:
        found = [
            (item.kind, item.round, item.held)
            for item in hospitals.left(name)
            if item.study == "listed"
        ]
        expected = [
            ("decision", None, "this hospital takes part"),
            ("answer", 0, "cohort-count, noised"),
            *(
                ("answer", number, "gradient_sum, 3 numbers, noised; num-examples, noised")
                for number in (1, 2, 3)
            ),
            ("answer", 3, "num-examples, noised; hold-out-table, noised"),
        ]
        assert found == expected, name
    shown = hospitals.consortium.run("client", "left", "--home", str(hospitals.site("aal").folder))
    assert shown.count("listed") >= 6


def test_a_quorum_lost_to_refusals_fails_the_study(hospitals: Any) -> None:
    """A hospital too small does not say why; the study fails, and nothing stays reserved."""
    plan = hospitals.plan(
        "too-large-a-cohort",
        sites__invited=list(SITES),
        sites__quorum=1,
        sites__smallest_cohort=1000,
    )
    hospitals.open(plan)
    hospitals.wait_end(plan.study)
    assert hospitals.state(plan.study) == (
        "failed: 0 sites can still take part, the plan needs 1; not taking part: aal, bergen, cork"
    )
    hospitals.wait_until(
        lambda: all("asks for at least 1000 patients" in hospitals.log(name) for name in SITES),
        30,
        "reasons",
    )
    for name in SITES:
        said = [item for item in hospitals.left(name) if item.study == plan.study]
        assert [(item.kind, item.held) for item in said] == [
            ("decision", "this hospital does not take part")
        ]
        assert "nobody outside is told why" in hospitals.log(name)
    outside = hospitals.journal(plan.study) + hospitals.log("coordinator")
    assert "patients" not in outside


def test_a_unit_that_does_not_fit(hospitals: Any) -> None:
    """A pressure asked for in mol/L: no hospital takes part; the reason is in its own log."""
    feature = {
        "name": "pressure",
        "kind": "number",
        "codes": ["LOINC//8480-6"],
        "unit": "mmol/L",
        "plausible": [0, 10],
        "window_days": 365,
    }
    plan = hospitals.plan("wrong-unit", features=[feature])
    hospitals.open(plan)
    hospitals.wait_until(
        lambda: hospitals.store.decisions("wrong-unit") == dict.fromkeys(SITES, False), 40, "no"
    )
    for name in SITES:
        assert "study wrong-unit is declined: " in hospitals.log(name)
        line = next(
            line for line in hospitals.log(name).splitlines() if "wrong-unit is declined" in line
        )
        assert "mmol/L" in line, line
        assert "Traceback" not in hospitals.log(name)
    assert "mmol/L" not in hospitals.log("coordinator") + hospitals.journal("wrong-unit")
    hospitals.consortium.run(
        "server", "studies", "stop", "wrong-unit", "--home", str(hospitals.consortium.server)
    )


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("understated", {"privacy__noise_multiplier": 1.0}, "but its noise and its 3 steps cost"),
        pytest.param(
            "above-policy",
            {"privacy__epsilon": 50, "privacy__noise_multiplier": 1.0},
            "epsilon",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_plan_whose_privacy_is_refused(
    hospitals: Any, name: str, changes: dict[str, Any], expected: str
) -> None:
    plan = hospitals.plan(name, sites__invited=list(SITES), sites__quorum=1, **changes)
    hospitals.open(plan)
    hospitals.wait_end(name)
    assert "0 sites can still take part, the plan needs 1" in hospitals.state(name)
    hospitals.wait_until(
        lambda: all(f"study {name} is declined" in hospitals.log(site) for site in SITES), 30, "no"
    )
    for site in SITES:
        text = hospitals.log(site).split(f"study {name} is declined: ")[1].splitlines()[0]
        assert expected in text, text


def forge(hospitals: Any, plan: Any, how: str) -> bytes:
    """An envelope that pretends to be the plan's."""
    offline = hospitals.consortium.server / "offline"
    envelope = envelope_from_bytes(hospitals.store.study(plan.study).envelope)
    if how == "one signature":
        key = load_signing_key(offline / "first-signer.key")
        return sign(PLAN_TYPE, envelope.body, [key]).to_bytes()
    value = json.loads(envelope.to_bytes())
    if how == "unknown signers":
        for signature in value["signatures"]:
            signature["keyid"] = "0" * 64
    else:
        body = json.loads(envelope.body)
        body["privacy"]["epsilon"] = 2.0
        altered = json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
        value["payload"] = base64.b64encode(altered).decode()
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("altered", "it was changed after signing"),
        ("one signature", "expected 2 signatures of demo's 2 signers, found 1"),
        pytest.param(
            "unknown signers",
            "expected 2 signatures of demo's 2 signers, found 0",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_forged_plan_is_refused_by_the_hospital(hospitals: Any, how: str, sentence: str) -> None:
    """The database of the coordinator is changed behind its back; each hospital notices."""
    plan = hospitals.plan(f"forged-{how.replace(' ', '-')}", sites__quorum=3)
    hospitals.kill("aal")
    hospitals.open(plan)
    hospitals.store.connection.execute(
        "UPDATE studies SET envelope = ? WHERE study = ?", (forge(hospitals, plan, how), plan.study)
    )
    before = len(hospitals.log("aal"))
    hospitals.start("aal")
    hospitals.wait_until(lambda: sentence in hospitals.log("aal")[before:], 30, sentence)
    assert "aal" not in hospitals.store.decisions(plan.study)
    assert not [item for item in hospitals.left("aal") if item.study == plan.study]
    hospitals.consortium.run(
        "server", "studies", "stop", plan.study, "--home", str(hospitals.consortium.server)
    )


def test_a_plan_of_another_consortium_or_past_its_end(hospitals: Any) -> None:
    """Refused where the consortium's people would open it, with a sentence."""
    for changes, sentence in (
        ({"consortium": "another"}, "is a plan of another; this coordinator is one of demo"),
        ({"expires": "2020-01-01T00:00:00Z"}, "the plan expired on 2020-01-01"),
    ):
        with pytest.raises(Exception, match=sentence):
            hospitals.open(hospitals.plan("refused-at-once", **changes))
