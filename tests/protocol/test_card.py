"""The card says what the plan and the noised reports say, and its page is safe to open."""

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import fedtwin.demo
from fedtwin_protocol.card import ModelCard, card_from_bytes, check_card
from fedtwin_protocol.card_page import card_page
from fedtwin_protocol.card_writing import RunFacts, write_card
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_protocol.study_learning import Evaluation

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLANS = Path(fedtwin.demo.__file__).parent / "plans"


def heart_plan(*, per_site: bool = False) -> StudyPlan:
    value = plan_from_yaml(PLANS / "heart-disease.yaml").model_dump()
    value["privacy"] |= {
        "mode": "local",
        "vote_noise": None,
        "clipping_norm": 1.0,
        "noise_multiplier": 6.58,
        "evaluation_noise": 3.8,
    }
    value["training"] |= {"rounds": 3, "learning_rate": 1.0}
    plan = StudyPlan.model_validate(value)
    return plan.model_copy(update={"evaluation": Evaluation(bins=10, per_site=per_site)})


def table(scale: float) -> np.ndarray:
    risk = (np.arange(10) + 0.5) / 10
    return scale * np.column_stack([1 - risk, risk])


def facts(**changes: object) -> RunFacts:
    told: dict[str, object] = {
        "patients": {"cleveland": 301.4, "geneva": 6.2},
        "rounds_used": {"cleveland": 3, "geneva": 2},
        "rounds": 3,
        "created": NOW,
        "tables": {"cleveland": table(40.0), "geneva": table(12.0)},
        "software": {"fedtwin": "0.1.0"},
    }
    return RunFacts(**{**told, **changes})  # type: ignore[arg-type]


def test_counts_below_the_smallest_cell_are_not_shown() -> None:
    card = write_card(heart_plan(), facts())
    assert [(site.name, site.patients) for site in card.sites] == [
        ("cleveland", 301),
        ("geneva", None),
    ]
    assert "below the smallest cell" in card_page(card)


def test_a_site_s_calibration_appears_only_where_the_plan_allows_it() -> None:
    together = write_card(heart_plan(), facts())
    apart = write_card(heart_plan(per_site=True), facts())
    assert [one.scope for one in together.calibration] == ["all sites"]
    assert [one.scope for one in apart.calibration] == ["all sites", "cleveland", "geneva"]


def test_calibration_is_the_share_of_the_sum_and_states_its_noise() -> None:
    (calibration,) = write_card(heart_plan(), facts()).calibration
    assert calibration.noise_sd == pytest.approx(3.8 * 2**0.5, abs=1e-3)
    assert [one.observed for one in calibration.bins] == pytest.approx(
        [one.predicted for one in calibration.bins]
    )
    assert {one.patients for one in calibration.bins} == {52}


def test_negative_and_small_bins_are_left_out_and_counted() -> None:
    noisy = table(40.0)
    noisy[0] = (-5.0, 3.0)
    noisy[1] = (-30.0, 25.0)
    (calibration,) = write_card(heart_plan(), facts(tables={"cleveland": noisy})).calibration
    assert calibration.left_out == 1
    assert calibration.bins[0].observed == 1.0


def test_metrics_say_how_they_were_bought_and_none_are_made_up() -> None:
    card = write_card(heart_plan(), facts())
    assert card.metrics
    assert all("noise of sd 5.37" in metric.bought for metric in card.metrics)
    figures = {metric.name: metric for metric in card.metrics}
    assert figures["expected_over_observed"].value == pytest.approx(1.0)
    assert "the noise alone moves it by" in figures["auroc"].bought
    bare = write_card(heart_plan(), facts(tables={}))
    assert (bare.metrics, bare.calibration) == ((), ())
    assert "Validate before use" in card_page(bare)


def test_a_small_count_of_held_out_patients_is_not_shown() -> None:
    few = write_card(heart_plan(), facts(tables={"geneva": table(0.8)}))
    assert few.metrics == ()
    rare = table(30.0) * [1.0, 0.02]
    names = [metric.name for metric in write_card(heart_plan(), facts(tables={"a": rare})).metrics]
    assert "patients" in names
    assert "outcomes" not in names


def test_a_table_of_another_shape_is_refused_with_its_site() -> None:
    with pytest.raises(ReleaseError, match=r"shape \(10, 2\) of site 'geneva'"):
        write_card(heart_plan(), facts(tables={"geneva": np.ones((20, 2))}))


def test_a_site_without_a_count_is_refused() -> None:
    with pytest.raises(ReleaseError, match="basel"):
        write_card(heart_plan(), facts(rounds_used={"basel": 1}))


def test_the_bytes_come_back_and_steps_are_those_taken() -> None:
    plan = heart_plan()
    card = write_card(plan, facts(rounds=2))
    assert card_from_bytes(card.to_bytes()) == card
    assert card.privacy.steps == 2
    check_card(card, plan)


def test_more_steps_than_planned_are_refused() -> None:
    plan = heart_plan()
    with pytest.raises(ReleaseError, match="4 rounds and 4 steps"):
        check_card(write_card(plan, facts(rounds=4)), plan)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"study": 1}', b"\xff"])
def test_what_is_no_card_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(ReleaseError, match="not a model card"):
        card_from_bytes(data)


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def hostile_card() -> ModelCard:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>&'
    card = write_card(heart_plan(per_site=True), facts(software={evil: evil}))
    sites = tuple(site.model_copy(update={"name": evil}) for site in card.sites)
    scopes = tuple(one.model_copy(update={"scope": evil}) for one in card.calibration)
    return card.model_copy(
        update={"title": evil, "purpose": evil, "limits": (evil,), "sites": sites}
    ).model_copy(update={"calibration": scopes, "endpoint": evil, "consortium": evil})


def test_the_page_holds_no_script_and_loads_nothing_whatever_the_card_says() -> None:
    page = card_page(hostile_card())
    parser = Tags()
    parser.feed(page)
    names = {name for name, _ in parser.tags}
    assert not names & {"script", "img", "iframe", "link", "object", "embed", "form", "a"}
    attributes = {key for _, attrs in parser.tags for key in attrs}
    assert not {key for key in attributes if key.startswith("on")} | (attributes & {"href", "src"})
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_the_page_shows_the_contract_and_every_plotted_point_as_text() -> None:
    plan = heart_plan()
    page = card_page(write_card(plan, facts()))
    for feature in plan.features:
        assert feature.name in page
    assert page.count("<circle") == 10
    assert "<td>0.95</td>" in page


def test_the_page_says_what_a_reader_must_know() -> None:
    """Question, contract, sites, privacy, figures and their price, calibration, limits."""
    plan = heart_plan(per_site=True)
    page = card_page(write_card(plan, facts()))
    for said in (
        plan.title,
        plan.endpoint.name,
        plan.features[0].description,
        "Training patients (noised)",
        "below the smallest cell",
        "Epsilon, for every patient",
        "Delta",
        "Privacy loss distributions",
        "Noised steps taken",
        "AUROC (0.5 is chance, 1 is best)",
        "How it was bought",
        "Calibration, cleveland",
        "not a medical device",
        plan.hash,
    ):
        assert said in page, said
