"""A coordinator, or a site, that does not keep to the protocol: refused, and nobody is unmasked."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedtwin_protocol import secure_messages as sm
from fedtwin_protocol import sum_steps as steps
from fedtwin_protocol.errors import FedtwinError, PlanError, PolicyError, SignatureError, WireError
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.site_key import keep_site_key
from fedtwin_protocol.v1 import exchange_pb2 as pb

from .conftest import plan_among


def public() -> bytes:
    key = X25519PrivateKey.generate().public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def changed(task: pb.Task, **fields: Any) -> pb.Task:
    """A task with other fields of its step."""
    found = {**sm.fields_of(task.content), **fields}
    kept = [record for record in task.content.records if record.name != sm.RECORD]
    content = sm.content_of(found)
    content.records.extend(kept)
    other = pb.Task()
    other.CopyFrom(task)
    other.content.CopyFrom(content)
    return other


def faults(group: Any, step: str) -> dict[str, FedtwinError]:
    return {site: error for (at, site), error in group.faults.items() if at == step}


def run_and_fail(group: Any) -> None:
    with pytest.raises(WireError):
        group.run()


def test_a_swapped_key_is_found_by_every_site(sites: Any) -> None:
    """The coordinator puts itself between: it shows its own keys as another site's."""
    group = sites(4)

    def swap(site: str, step: str, task: pb.Task) -> pb.Task:
        if step != steps.SHARES:
            return task
        fields = sm.fields_of(task.content)
        masks = list(sm.raws(fields, "mask", 4))
        masks[3 if site == "site-000" else 0] = public()
        return changed(task, mask=masks)

    group.change = swap
    run_and_fail(group)
    found = faults(group, steps.SHARES)
    assert set(found) == set(group.keys)
    assert all(isinstance(error, SignatureError) for error in found.values()), found


def test_keys_of_another_sum_do_not_count(sites: Any) -> None:
    """Signed keys of an earlier round, shown again."""
    group = sites(4)
    group.run(1)
    old = {name: group.seen[steps.KEYS, name] for name in group.keys}

    def replay(site: str, step: str, task: pb.Task) -> pb.Task:
        if step != steps.SHARES:
            return task
        other = "site-003" if site != "site-003" else "site-000"
        place = sorted(group.keys).index(other)
        fields = sm.fields_of(task.content)
        before = sm.fields_of(old[other])
        columns = {}
        for name, key in (("mask", "mask"), ("channel", "channel"), ("signatures", "signature")):
            items = list(sm.raws(fields, name, 4))
            items[place] = before[key]
            columns[name] = items
        return changed(task, **columns)

    group.change = replay
    with pytest.raises(WireError):
        group.run(2)
    assert len(faults(group, steps.SHARES)) == 4


def test_too_few_sites_are_refused(sites: Any) -> None:
    """The coordinator shows two sites of four, to be left with one unknown."""
    group = sites(4)

    def fewer(site: str, step: str, task: pb.Task) -> pb.Task:
        if step != steps.SHARES:
            return task
        pair = sorted({site, "site-001" if site != "site-001" else "site-000"})
        fields = sm.fields_of(task.content)
        places = [sorted(group.keys).index(name) for name in pair]
        columns = {
            name: [sm.raws(fields, name, 4)[place] for place in places]
            for name in ("mask", "channel", "commitment", "signatures")
        }
        return changed(task, sites=pair, **columns)

    group.change = fewer
    run_and_fail(group)
    assert all("3 are needed" in str(error) for error in faults(group, steps.SHARES).values())


def test_two_sets_of_survivors(sites: Any) -> None:
    """Half of the sites are told that another one vanished: no site gives a share."""
    group = sites(7)
    everybody = sorted(group.keys)

    def split_view(site: str, step: str, task: pb.Task) -> pb.Task:
        if step != steps.CONFIRM:
            return task
        without = everybody[6] if site in everybody[:3] else everybody[0]
        return changed(task, survivors=[name for name in everybody if name != without])

    group.change = split_view
    run_and_fail(group)
    given = [key for key in group.seen if key[0] == steps.UNMASK]
    assert given == []


def test_signatures_over_another_set(sites: Any) -> None:
    group = sites(4)
    everybody = sorted(group.keys)
    held: dict[str, bytes] = {}

    def lie(site: str, step: str, task: pb.Task) -> pb.Task:
        if step == steps.CONFIRM and site == everybody[0]:
            return changed(task, survivors=everybody[:3])
        return task

    def keep(site: str, step: str, found: pb.Content) -> pb.Content:
        if step == steps.CONFIRM:
            held[site] = sm.raw(sm.fields_of(found), "signature", 64)
        return found

    group.change, group.twist = lie, keep
    group.run()  # three others agree, which is enough
    assert everybody[0] in faults(group, steps.UNMASK)
    assert (steps.UNMASK, everybody[0]) not in group.seen


def test_alive_and_dead_at_once(sites: Any) -> None:
    """After the answer for one set, the coordinator asks for the other kind of share."""
    group = sites(4)
    group.run()
    target = "site-003"
    survivors = [name for name in sorted(group.keys) if name != target]
    for site in survivors:
        for kind, fields in (
            ("train.confirm", {"survivors": survivors}),
            ("train.unmask", {"signers": survivors, "signatures": [b"x" * 64] * 3}),
            ("train.keys", {}),
        ):
            with pytest.raises(PolicyError, match="over here"):
                group.answer(site, group.task(kind, sm.content_of(fields)))


def test_a_second_part_of_one_sum(sites: Any) -> None:
    """Asked for under another name, it would lie under the masks of the first one."""
    group = sites(4)
    group.silent[steps.CONFIRM] = set(group.keys)
    asked: dict[str, pb.Task] = {}

    def keep(site: str, step: str, task: pb.Task) -> pb.Task:
        if step == steps.MASKED:
            asked[site] = task
        return task

    group.change = keep
    run_and_fail(group)
    for site, task in asked.items():
        group.answer(site, task)  # as after a crash: of the first one nothing had left
        again = pb.Task()
        again.CopyFrom(task)
        again.task_id = "another"
        with pytest.raises(PolicyError, match="by another task"):
            group.answer(site, again)


def test_a_second_set_before_the_answer(sites: Any) -> None:
    group = sites(4)
    everybody = sorted(group.keys)
    group.silent[steps.UNMASK] = set(everybody)
    run_and_fail(group)
    fewer = sm.content_of({"survivors": everybody[:3]})
    with pytest.raises(PolicyError, match="another set"):
        group.answer(everybody[0], group.task("train.confirm", fewer))


def test_a_site_is_never_asked_to_confirm_without_itself(sites: Any) -> None:
    group = sites(4)
    everybody = sorted(group.keys)
    group.silent[steps.CONFIRM] = set(everybody)
    run_and_fail(group)
    others = sm.content_of({"survivors": everybody[1:]})
    with pytest.raises(WireError, match="not in the set"):
        group.answer(everybody[0], group.task("train.confirm", others))


def test_shares_for_somebody_else(sites: Any) -> None:
    """Sealed shares shown to the wrong site, or of another sum, open nothing and stop nobody."""
    group = sites(4)

    def crossed(site: str, step: str, task: pb.Task) -> pb.Task:
        if step != steps.MASKED or site != "site-000":
            return task
        boxes = sm.raws(sm.fields_of(task.content), "sealed", 3)
        return changed(task, sealed=[boxes[1], boxes[0], boxes[2]])

    group.change = crossed
    summed = group.run()
    given = sm.fields_of(group.seen[steps.UNMASK, "site-000"])
    assert given["sites"] == ["site-000", "site-003"]
    assert len(summed.sites) == 4


class Liars:
    """Sites that answer a step with rubbish."""

    def __init__(self, names: set[str], step: str, rubbish: Any) -> None:
        self.names, self.step, self.rubbish = names, step, rubbish

    def __call__(self, site: str, step: str, found: pb.Content) -> pb.Content:
        if step != self.step or site not in self.names:
            return found
        return self.rubbish(found)


def _fields(found: pb.Content, **others: Any) -> pb.Content:
    return sm.content_of({**sm.fields_of(found), **others})


RUBBISH: Mapping[str, tuple[str, Any]] = {
    "keys nobody can agree with": (steps.KEYS, lambda found: _fields(found, mask=bytes(32))),
    "keys without a signature": (steps.KEYS, lambda found: _fields(found, signature=bytes(64))),
    "no keys": (steps.KEYS, lambda found: pb.Content()),
    "shares that open nothing at two sites": (
        steps.SHARES,
        lambda found: _fields(
            found, sealed=[os.urandom(160)] * 2 + sm.fields_of(found)["sealed"][2:]
        ),
    ),
    "shares for nobody": (steps.SHARES, lambda found: _fields(found, to=[], sealed=[])),
    "a part of another length": (steps.MASKED, lambda found: pb.Content()),
    "a signature over nothing": (steps.CONFIRM, lambda found: _fields(found, signature=bytes(64))),
    "wrong shares": (
        steps.UNMASK,
        lambda found: _fields(found, shares=[bytes(66)] * len(sm.fields_of(found)["sites"])),
    ),
    "no shares": (steps.UNMASK, lambda found: _fields(found, sites=[], shares=[])),
}


@pytest.mark.parametrize("what", RUBBISH)
def test_a_site_that_sends_rubbish_stops_nobody(sites: Any, what: str) -> None:
    group = sites(10)
    step, rubbish = RUBBISH[what]
    liar = "site-004"
    group.twist = Liars({liar}, step, rubbish)
    summed = group.run()
    exact = sum(group.parts[site] for site in summed.sites)
    privacy, terms = group.plan.privacy, group.terms
    sd = privacy.noise_multiplier * privacy.clipping_norm * (10 / terms.honest_present) ** 0.5
    assert len(summed.sites) >= 9
    assert np.abs(summed.total - exact).max() < 5 * sd


def test_a_site_that_gives_nobody_a_share_is_named(sites: Any) -> None:
    """It can end the sum, as nobody can take its mask off; nothing is seen, and it is named."""
    group = sites(7)
    rubbish = lambda found: _fields(found, sealed=[os.urandom(160) for _ in range(6)])  # noqa: E731
    group.twist = Liars({"site-004"}, steps.SHARES, rubbish)
    with pytest.raises(WireError, match="site-004's secret"):
        group.run()


@pytest.fixture
def named(tmp_path: Any) -> dict[str, str]:
    return {f"site-{n}": keep_site_key(tmp_path / f"{n}").public for n in range(7)}


def test_terms_come_from_the_plan(named: dict[str, str]) -> None:
    """Threshold, sites, noise and modulus are computed; nothing of them is in any message."""
    terms = secure_terms(plan_among(named))
    assert (terms.threshold, terms.may_vanish, terms.colluding, terms.honest_present) == (
        5,
        2,
        2,
        3,
    )
    assert terms.share_sd(3.0) == pytest.approx(3.0 * 2**20 / 3**0.5)
    with pytest.raises(PlanError, match="at most 2"):
        secure_terms(plan_among(named, colluding_sites=3))
    for fewer in (0, 1, 2):
        some = dict(list(named.items())[:fewer])
        with pytest.raises(PlanError, match="3 to 100"):
            secure_terms(plan_among(some))


def test_a_scale_that_leaves_no_noise_is_refused(named: dict[str, str]) -> None:
    with pytest.raises(PlanError, match="raise privacy"):
        secure_terms(plan_among(named, scale_bits=4, noise_multiplier=1.0))
    assert secure_terms(plan_among(named, scale_bits=5, noise_multiplier=1.0)).scale == 32


@pytest.mark.parametrize("count", range(3, 101))
def test_two_sets_can_never_both_be_confirmed(count: int) -> None:
    """2 t > K + T for every number of sites, so honest sites alone cannot be split."""
    names = {f"site-{n:03d}": "" for n in range(count)}
    terms = secure_terms(plan_among(names))
    assert 2 * terms.threshold > count + terms.colluding
    assert terms.honest_present >= 1


def test_another_key_in_the_plan(sites: Any) -> None:
    """A plan that names somebody else's key for this hospital: the site gives no keys."""
    group = sites(4)
    keys = dict(group.plan.sites.keys)
    keys["site-001"] = keys["site-002"]
    group.plan = plan_among(keys)
    task = group.task("train.keys", pb.Content())
    with pytest.raises(PolicyError, match="another signing key"):
        group.answer("site-001", task)


def test_steps_out_of_order(sites: Any) -> None:
    group = sites(4)
    everybody = sorted(group.keys)
    empty = {"senders": everybody[1:], "sealed": [b""] * 3}
    with pytest.raises(WireError, match="never begun"):
        group.answer(everybody[0], group.task("train.masked", sm.content_of(empty)))
    group.answer(everybody[0], group.task("train.keys", pb.Content()))
    for kind, fields in (
        ("train.masked", empty),
        ("train.confirm", {"survivors": everybody}),
        ("train.unmask", {"signers": everybody, "signatures": [bytes(64)] * 4}),
    ):
        with pytest.raises(WireError, match="before"):
            group.answer(everybody[0], group.task(kind, sm.content_of(fields)))


def test_secrets_are_erased_when_the_sum_is_over(sites: Any) -> None:
    group = sites(4)
    group.silent[steps.UNMASK] = set(group.keys)
    run_and_fail(group)
    file = group.folder / "site-000.sqlite"
    with group.sums["site-000"]._database.explained():
        row = group.sums["site-000"]._database.connection.execute("SELECT state FROM sums")
        secret = json.loads(row.fetchone()[0])["seed"].encode()
    group.silent.clear()
    held = b"".join(path.read_bytes() for path in group.folder.glob("site-000.sqlite*"))
    assert secret in held
    group.run(2)
    for site in group.keys:
        group.sums[site]._database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    held = b"".join(path.read_bytes() for path in group.folder.glob("site-000.sqlite*"))
    assert secret not in held
    assert file.stat().st_mode & 0o077 == 0
