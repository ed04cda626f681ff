"""Write the node's tables of pharmacogenes from PharmCAT's definitions, in the format of genes/.

python scripts/gene_tables.py --pharmcat DEFINITIONS --out FOLDER
    [--values ALLELE_TABLE.csv]

DEFINITIONS is src/main/resources/org/pharmgkb/pharmcat of github.com/PharmGKB/PharmCAT, or a copy
of what is read in it: `definition/alleles` (or `alleles`) with <gene>_translation.json and
exemptions.json, and `phenotype/<gene>.json` (definitions from PharmVar and CPIC, CC0 through
CPIC; code MPL-2.0, from which nothing is taken).
ALLELE_TABLE is pypgx/api/data/allele-table.csv (github.com/sbslee/pypgx, MIT; CPIC's allele
functions), read for G6PD alone, whose phenotype table is not among DEFINITIONS.

Where DEFINITIONS are older than gene_functions.json beside this script, its functions of TPMT and
NUDT15 take the place of theirs. CYP2D6 is scored by phenotype/CYP2D6.json, or by that file where
DEFINITIONS have none or an older one.

Only facts are carried over: positions, bases, names, functions, phenotypes. A table of every pair
of alleles becomes one of every pair of functions, after a check that nothing is lost by it.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PHARMCAT = "PharmCAT definitions (github.com/PharmGKB/PharmCAT), from PharmVar and CPIC"
LICENCE = "CPIC content CC0; PharmCAT MPL-2.0"
FUNCTIONS = Path(__file__).with_name("gene_functions.json")
BANDS = "bands: Caudle 2020, doi 10.1111/cts.12692"
# Gene symbols and their HGNC numbers (genenames.org).
HGNC = {
    "ABCG2": 74,
    "CYP2B6": 2615,
    "CYP2C19": 2621,
    "CYP2C9": 2623,
    "CYP2D6": 2625,
    "CYP3A5": 2638,
    "CYP4F2": 2645,
    "DPYD": 3012,
    "G6PD": 4057,
    "NUDT15": 23063,
    "SLCO1B1": 10959,
    "TPMT": 12014,
    "UGT1A1": 12530,
    "VKORC1": 23663,
}
# Sets of alleles that stand for toxicity: an undefined base is read as the reference there
# (PharmCAT, Named Allele Matcher 101, "Undocumented Variations").
UNDOCUMENTED_AS_REFERENCE = {"DPYD", "G6PD", "NUDT15", "TPMT"}
# Alleles that must be told from normal ones before a phenotype is given: tier 1 of the AMP
# recommendations, as PharmCAT carries them, and for genes without such: SLCO1B1 c.521T>C (CPIC
# statins 2022, PMID 35152405: "all ... tests should interrogate"), ABCG2 (the same), UGT1A1 *28
# (CPIC atazanavir 2016), CYP2B6 *6 and *18 (CPIC efavirenz 2019), CYP4F2 *3 (CPIC warfarin 2017),
# G6PD A- and Mediterranean (CPIC 2023).
ESSENTIAL = {
    "SLCO1B1": ["*5"],
    "ABCG2": ["rs2231142 variant (T)"],
    "UGT1A1": ["*28"],
    "CYP2B6": ["*6", "*18"],
    "CYP4F2": ["*3"],
    "G6PD": [
        "A- 202A_376G",
        "Mediterranean, Dallas, Panama, Sassari, Cagliari, Birmingham",
    ],
}
# Either of the two variants of HapB3 will do; they are read in pairs.
HAPB3 = [97573863, 97579893]
HAPB3_NAMES = {
    "both": "c.1129-5923C>G, c.1236G>A (HapB3)",
    "intronic": "c.1129-5923C>G",
}


def main() -> int:
    """Write one JSON file for each gene."""
    parser = argparse.ArgumentParser(description="Write the tables of pharmacogenes.")
    parser.add_argument("--pharmcat", type=Path, required=True)
    parser.add_argument("--values", type=Path, help="functions of G6PD alleles")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    exemptions = _read(_alleles(options.pharmcat) / "exemptions.json")
    functions = _functions(options.values)
    for gene in HGNC:
        if gene == "G6PD" and not functions:
            print(f"{gene}: left out, for its functions come from --values")
            continue
        table = _table(gene, options.pharmcat, exemptions.get(gene, {}), functions.get(gene, {}))
        path = options.out / f"{gene}.json"
        path.write_text(_compact(table), encoding="utf-8")
        print(f"{path}: {len(table.get('alleles', table.get('values', ())))} alleles")
    return 0


def _alleles(folder: Path) -> Path:
    found = [folder / "definition" / "alleles", folder / "alleles"]
    for one in found:
        if one.is_dir():
            return one
    sys.exit(
        f"{folder} has neither definition/alleles nor alleles: "
        "give PharmCAT's src/main/resources/org/pharmgkb/pharmcat, or a copy of it"
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _functions(path: Path | None) -> dict[str, dict[str, dict[str, Any]]]:
    if path is None:
        return {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            value = None if row["ActivityScore"] == "N/A" else float(row["ActivityScore"])
            found.setdefault(row["Gene"], {})[row["StarAllele"]] = {
                "function": row["Function"].replace(" Function", " function"),
                "activity": value,
            }
    return found


def _table(
    gene: str, folder: Path, exemption: dict[str, Any], functions: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    definition = _read(_alleles(folder) / f"{gene}_translation.json")
    variants = definition["variants"]
    table: dict[str, Any] = {
        "format": "fedtwin-gene-table/1",
        "gene": gene,
        "hgnc": HGNC[gene],
        "version": definition["version"][:10],
        "source": PHARMCAT,
        "licence": LICENCE,
        "build": "GRCh38",
        "chromosome": definition["chromosome"],
    }
    phenotype = folder / "phenotype" / f"{gene}.json"
    functional = _read(phenotype) if phenotype.exists() else None
    if gene == "CYP2D6":
        return table | _cyp2d6(functional)
    if gene == "G6PD":
        table["source"] += "; functions: CPIC through PyPGx (github.com/sbslee/pypgx)"
        table["licence"] += "; PyPGx MIT"
        lookups = {name: _g6pd_class(item["function"]) for name, item in functions.items()}
        pairs = _g6pd_pairs()
    elif functional is None:
        lookups, pairs = {}, []
    else:
        lookups = {item["name"]: item["lookupKey"] for item in functional["namedAlleles"]}
        pairs = _pairs(functional, lookups)
    newer = _read(FUNCTIONS)
    if gene in newer["functions"] and table["version"] < newer["version"]:
        lookups, pairs = newer["functions"][gene], newer["phenotypes"][gene]
        table["source"] += f" of {table['version']}; functions and phenotypes: {newer['source']}"
        table["version"] = newer["version"]
    return table | {
        "calling": "variants" if gene == "DPYD" else "diplotype",
        "undocumented_as_reference": gene in UNDOCUMENTED_AS_REFERENCE,
        "essential": ESSENTIAL.get(gene) or exemption.get("amp1Alleles", []),
        **({"paired": {"positions": HAPB3, **HAPB3_NAMES}} if gene == "DPYD" else {}),
        **({"one_position": _one_position()} if gene == "SLCO1B1" else {}),
        "loci": [[item["position"], item["rsid"], item["ref"], item["alts"]] for item in variants],
        "reference_bases": _bases(variants),
        "alleles": [
            _allele(item, variants, definition["suballelesMap"])
            for item in definition["namedAlleles"]
            if item["name"] not in exemption.get("ignoredAlleles", [])
        ],
        "functions": dict(sorted(lookups.items())),
        "phenotypes": pairs,
    }


def _one_position() -> dict[str, Any]:
    """SLCO1B1 by c.521T>C alone, where no diplotype fits (CPIC statins 2022, PMID 35152405)."""
    return {"position": 21178615, "alleles": {"T": "*1", "C": "*5"}}


def _allele(
    item: dict[str, Any], variants: list[dict[str, Any]], suballeles: dict[str, str]
) -> dict[str, Any]:
    bases = {
        str(variant["position"]): base
        for variant, base in zip(variants, item["alleles"], strict=True)
        if base is not None
    }
    if item["reference"]:
        known = {str(variant["position"]): variant["ref"] for variant in variants}
        assert bases == known, f"{item['name']} is not the reference genome's"
        return {"name": item["name"], "reference": True}
    shown = suballeles.get(item["name"])
    made = {"name": item["name"], "bases": bases}
    return made if shown is None else made | {"shown_as": shown}


def _pairs(functional: dict[str, Any], lookups: dict[str, str]) -> list[list[Any]]:
    found: dict[tuple[str, ...], tuple[str, float | None]] = {}
    for item in functional["diplotypes"]:
        names = [name for name, count in item["diplotypekey"].items() for _ in range(count)]
        key = tuple(sorted(lookups[name] for name in names))
        score = item["activityScore"]
        result = (item["phenotype"], None if score in {None, "n/a"} else float(score))
        if found.setdefault(key, result) != result:
            sys.exit(f"{functional['gene']}: {key} gives {found[key]} and {result}")
    return [[list(key), phenotype, score] for key, (phenotype, score) in sorted(found.items())]


def _g6pd_class(function: str) -> str:
    """CPIC counts classes II and III together (Gammal 2023, doi 10.1002/cpt.2735)."""
    if "CNSHA" in function:
        return "I/Deficient with CNSHA"
    if "Deficient" in function:
        return "II-III/Deficient"
    return "IV/Normal" if "Normal" in function else "Unknown function"


def _g6pd_pairs() -> list[list[Any]]:
    """Table 1 of Gammal 2023 (doi 10.1002/cpt.2735); one allele: hemizygous."""
    none, some, hard = "IV/Normal", "II-III/Deficient", "I/Deficient with CNSHA"
    return [
        [[none], "Normal", None],
        [[some], "Deficient", None],
        [[hard], "Deficient with CNSHA", None],
        [[none, none], "Normal", None],
        [sorted([none, some]), "Variable", None],
        [sorted([none, hard]), "Variable", None],
        [[some, some], "Deficient", None],
        [[hard, hard], "Deficient with CNSHA", None],
    ]


def _cyp2d6(functional: dict[str, Any] | None) -> dict[str, Any]:
    """Values of single alleles, and bands of the score (Caudle 2020, doi 10.1111/cts.12692)."""
    newer = _read(FUNCTIONS)
    if functional is None or functional["version"][:10] < newer["version"]:
        version, source, values = newer["version"], newer["source"], newer["cyp2d6"]
    else:
        version, source = functional["version"][:10], PHARMCAT
        # Duplications and hybrids are summed from single alleles, and need no entry.
        values = {
            name: None if value == "n/a" else float(value)
            for name, value in functional["activityValues"].items()
            if re.fullmatch(r"\*\d+", name)
        }
    return {
        "version": version,
        "source": f"values of alleles: {source}; {BANDS}",
        "calling": "reported",
        "values": values,
        "bands": [
            {"below": 0.25, "phenotype": "Poor Metabolizer"},
            {"below": 1.25, "phenotype": "Intermediate Metabolizer"},
            {"up_to": 2.25, "phenotype": "Normal Metabolizer"},
            {"phenotype": "Ultrarapid Metabolizer"},
        ],
    }


def _bases(variants: Iterable[dict[str, Any]]) -> list[list[Any]]:
    """What is known of the reference around insertions and deletions, for left-alignment.

    HGVS writes an indel at its rightmost place and VCF at its leftmost one; in between the
    reference repeats what is inserted or deleted.
    """
    found = []
    for item in variants:
        position, ref = item["position"], item["ref"]
        changed = min((alt for alt in item["alts"] if len(alt) != len(ref)), key=len, default=None)
        if changed is None:
            continue
        unit = ref[1:] if len(changed) < len(ref) else changed[1:]
        end = _rightmost(item["chromosomeHgvsName"], ref, changed)
        length = max(end - position, len(ref) - 1)
        repeated = (unit * (length // len(unit) + 1))[:length]
        found.append([position, ref[0] + (repeated if len(repeated) >= len(ref) - 1 else ref[1:])])
    return found


def _rightmost(hgvs: str, ref: str, changed: str) -> int:
    repeat = re.findall(r"(\d+)([ACGT]+)\[(\d+)\]", hgvs)
    if repeat:
        start, unit, _ = repeat[0]
        fewest = min(int(count) for _, _, count in repeat)
        copies = fewest + max(0, (len(ref) - len(changed)) // len(unit))
        return int(start) + copies * len(unit) - 1
    match = re.search(r"g\.(\d+)(?:_(\d+))?(del|dup|ins)", hgvs)
    if match is None:
        sys.exit(f"cannot read {hgvs}")
    return int(match[1]) if match[3] == "ins" else int(match[2] or match[1])


def _compact(table: dict[str, Any]) -> str:
    """One line for each position, allele and pair, so that versions can be compared."""
    lines = []
    for key, value in table.items():
        if isinstance(value, list) and len(value) > 3:
            rows = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value)
            lines.append(f' "{key}": [\n  {rows}\n ]')
        else:
            lines.append(f' "{key}": {json.dumps(value, ensure_ascii=False)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
