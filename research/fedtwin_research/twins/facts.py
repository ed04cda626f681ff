"""What an answer hangs on: versions and hashes of file, cards, tables and software; the seed."""

from importlib.metadata import version

from fedtwin_research.twins.answering import Answer
from fedtwin_twins.pharmacology.gene_effects import built_in_gene_effects
from fedtwin_twins.pharmacology.interactions import built_in_interactions
from fedtwin_twins.pharmacology.recommendations import built_in_recommendations

_LIBRARIES = ("fedtwin", "numpy", "torch")


def versions_of(answer: Answer) -> list[tuple[str, str]]:
    """Names and values."""
    question = answer.question
    rows = [
        ("Patient's file (SHA-256)", question.sha256),
        ("Seed", str(question.settings.seed)),
        ("Guidelines as of", str(question.settings.today)),
    ]
    for name, entry in question.entries.items():
        replaced = f", in place of the shipped {entry.replaces}" if entry.replaces else ""
        text = f"version {entry.card.version}, {entry.card.digest}, {entry.origin}{replaced}"
        rows.append((f"Model card {name}", text))
    beside = question.beside
    if beside.results:
        rows.append(("Table of gene effects", built_in_gene_effects().origin.version.isoformat()))
        rows.append(
            ("Table of recommendations", built_in_recommendations().origin.version.isoformat())
        )
        rows += [
            (f"Table of {one.gene}", str(one.version)) for one in beside.results if one.version
        ]
    if beside.interactions:
        rows.append(("Table of interactions", built_in_interactions().origin.version.isoformat()))
    software = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return [*rows, ("Software", software)]
