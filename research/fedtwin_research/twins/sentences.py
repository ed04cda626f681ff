"""Parts of an answer as sentences and rows, the same on screen, on the page and for machines."""

from collections.abc import Sequence

from fedtwin_research.twins.answering import Answer
from fedtwin_twins.advice.assessment import Assessment, Attainment
from fedtwin_twins.advice.search import SetAside
from fedtwin_twins.pharmacology.recommendations import Recommendation
from fedtwin_twins.pharmacology.tables import HOW_CHECKED

NOTICE = (
    "A proposal from models, for a clinician to judge and to sign. It gives nothing by itself, and "
    "is no medical device."
)


def candidate_rows(answer: Answer, most: int) -> tuple[list[str], list[list[str]]]:
    """Heads, and a row for each of the best candidates."""
    chosen = answer.candidates[:most]
    if not chosen:
        return [], []
    heads = ["regimen"]
    for one in chosen[0].attainments:
        name = target_name(one)
        heads += [f"{name}, {one.limits.unit}", "below %", "in range %", "above %"]
    risky = any(answer.risks.by_regimen.values())
    heads += ["risk %"] if risky else []
    return heads, [_candidate_row(answer, one, risky) for one in chosen]


def _candidate_row(answer: Answer, one: Assessment, risky: bool) -> list[str]:
    row = [str(one.regimen)]
    for each in one.attainments:
        low, high = each.band
        row.append(f"{each.middle:.3g} ({low:.3g} to {high:.3g})")
        row += [f"{100 * part:.0f}" for part in (each.below, each.inside, each.above)]
    if risky:
        risks = answer.risks.by_regimen.get(str(one.regimen), ())
        row.append("; ".join(f"{100 * it.risk.risk:.0f}" for it in risks))
    return row


def target_name(one: Attainment) -> str:
    """Such as `area 24h of concentration`."""
    return one.target.words


def target_words(one: Attainment) -> str:
    """Such as `area 24h of concentration from 400 to 600 mg/L.h (Rybak …)`."""
    low, high = one.limits.low, one.limits.high
    ends = [f"from {low:g}" if low > -float("inf") else "", f"to {high:g}"]
    text = " ".join(part for part in (ends if high < float("inf") else ends[:1]) if part)
    source = f" ({one.target.source})" if one.target.source else ""
    return f"{target_name(one)} {text} {one.limits.unit}{source}"


def risk_lines(answer: Answer) -> list[str]:
    """Risks under the best candidate and as now, with interval and source."""
    lines = []
    regimens = [str(one.regimen) for one in answer.candidates[:1]]
    wanted = answer.question.wanted
    if wanted is not None and wanted.current is not None:
        regimens.append(str(wanted.current))
    for regimen in dict.fromkeys(regimens):
        for one in answer.risks.by_regimen.get(regimen, ()):
            lines.append(
                f"{regimen}: {one.risk}; {one.above:.0%} of draws above {one.threshold}; "
                f"{one.differs}; {one.risk.note}"
            )
    lines.extend(str(one) for one in answer.risks.not_used)
    return lines


def next_level_lines(answer: Answer) -> list[str]:
    """When the next level is worth most."""
    one = answer.next_level
    if one is None or not answer.candidates:
        return []
    name = target_name(answer.candidates[0].attainments[0])
    return [
        f"the next level is worth most at {one.hour:.4g} h: it would explain {one.explained:.0%} "
        f"of what is not known of the {name}"
    ]


def set_aside_lines(answer: Answer) -> list[str]:
    """How many candidates break which limit."""
    if answer.advised is None:
        return []
    return grouped(answer.advised.choice.set_aside)


def grouped(set_aside: Sequence[SetAside]) -> list[str]:
    """Reasons with the candidates that share them."""
    by_reason: dict[str, list[str]] = {}
    for one in set_aside:
        for reason in one.reasons:
            text = f"{reason.field}: expected {reason.allowed}"
            if reason.unit:
                text += f" {reason.unit}"
            by_reason.setdefault(text, []).append(f"{one.regimen}")
    return [
        f"{reason}: {len(regimens)} set aside, such as {regimens[0]}"
        for reason, regimens in by_reason.items()
    ]


def refusal_lines(answer: Answer) -> list[str]:
    """Why nothing is proposed: the main reason, and what was set aside, counted."""
    main = [one for one in answer.refusal if one.value != "set aside"]
    aside: dict[str, list[str]] = {}
    for one in answer.refusal:
        if one.value == "set aside":
            reason = one.remedy.split("; expected ")[-1]
            aside.setdefault(reason, []).append(one.field)
    return [
        *map(str, main),
        *(f"{len(who)} set aside, such as {who[0]}: expected {why}" for why, who in aside.items()),
    ]


def recommendation_lines(answer: Answer) -> list[str]:
    """What guidelines say for the genes, with strength, source and date."""
    lines = list(answer.question.beside.guidance)
    lines += [_recommended(one) for one in answer.question.beside.recommendations]
    return lines


def _recommended(one: Recommendation) -> str:
    genes = ", ".join(f"{gene} {result}" for gene, result in one.results)
    text = f"{one.drug}{f' for {one.indication}' if one.indication else ''}, {genes}: {one.text}"
    if one.source:
        checked = HOW_CHECKED[one.verified]
        text += f" ({one.strength}; {one.source}, since {one.since}; {checked})"
    return text


def effect_lines(answer: Answer) -> list[str]:
    """What genes do to each model's parameters."""
    return [
        f"{model}: {effect} ({effect.source}; {HOW_CHECKED[effect.verified]})"
        for model, found in answer.question.beside.effects.items()
        for effect in found.effects
    ]


def interaction_lines(answer: Answer) -> list[str]:
    """What each other drug does to the drug."""
    return [
        f"{one.other}: {one.action}; {one.text}"
        + (f" ({one.source}; {HOW_CHECKED[one.verified]})" if one.source else "")
        for one in answer.question.beside.interactions
    ]
