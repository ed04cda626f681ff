"""What product code may never do: under-counting accountants, and formats that run code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("protocol", "twin_models", "client", "server", "research", "cli")
# Modules whose loading runs what the file says (pickle and what is built on it).
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Calls that unpickle, by the last two names of what is called.
CALLS = {("torch", "load"), ("torch", "save"), ("jit", "load"), ("pd", "read_pickle")}
ATTRIBUTES = {"read_pickle", "to_pickle", "load_checkpoint"}
# The Gaussian approximation of sampled steps says less than the truth (3.48 for 4.21).
ACCOUNTANTS = ("GDPAccountant", "GaussianAccountant", "compute_mu_poisson", "compute_eps_poisson")


def faults(source: str) -> list[str]:
    """What a module does that it may not, by line."""
    return [
        f"line {getattr(node, 'lineno', 0)}: {what}"
        for node in ast.walk(ast.parse(source))
        for what in _faults_of(node)
    ]


def _faults_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"imports {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
        yield from (f"imports {a.name}" for a in node.names if a.name.endswith(".gdp"))
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if module.split(".")[0] in MODULES or module.endswith(".gdp"):
            yield f"imports from {module}"
        if module == "torch":
            yield from (f"imports torch.{a.name}" for a in node.names if a.name in {"load", "save"})
        yield from (f"imports {a.name}" for a in node.names if a.name in {*ACCOUNTANTS, "gdp"})
    if isinstance(node, ast.Attribute):
        owner = node.value
        above = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        if (above, node.attr) in CALLS or node.attr in {*ATTRIBUTES, *ACCOUNTANTS}:
            yield f"uses {above}.{node.attr}"
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            yield from _faults_of_keyword(keyword)
        if _is_import_call(node):
            yield "imports a forbidden module by name"


def _faults_of_keyword(keyword: ast.keyword) -> Iterator[str]:
    value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
    if (keyword.arg, value) in {("poisson_sampling", False), ("accountant", "gdp")}:
        yield f"passes {keyword.arg}={value!r}"
    if (keyword.arg, value) in {("allow_pickle", True), ("weights_only", False)}:
        yield f"passes {keyword.arg}={value!r}"


def _is_import_call(node: ast.Call) -> bool:
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    first = node.args[0] if node.args else None
    text = first.value if isinstance(first, ast.Constant) else ""
    return name in {"import_module", "__import__"} and str(text).split(".")[0] in MODULES


def test_product_code_does_nothing_forbidden() -> None:
    found = {
        str(path.relative_to(ROOT)): wrong
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*.py")
        if (wrong := faults(path.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import joblib.numpy_pickle",
        "from cloudpickle import loads",
        "from opacus.accountants import GDPAccountant",
        "import opacus.accountants.gdp",
        "from opacus.accountants.analysis import gdp",
        "PrivacyEngine(accountant='gdp')",
        "engine.make_private(model, poisson_sampling=False)",
        "opacus.accountants.GDPAccountant()",
        "engine.load_checkpoint(path='x')",
        "torch.load('x')",
        "torch.jit.load('x')",
        "from torch import load",
        "torch.hub.download(weights_only=False)",
        "np.load('x', allow_pickle=True)",
        "frame.to_pickle('x')",
        "importlib.import_module('pickle')",
    ],
)
def test_each_of_it_would_be_found(line: str) -> None:
    assert faults(line) != []


def test_what_is_allowed_is_not_found() -> None:
    allowed = (
        "from safetensors.numpy import load\njson.load(file)\nnp.load('x', allow_pickle=False)\n"
        "engine.make_private(model, poisson_sampling=True)\nPrivacyEngine(accountant='prv')\n"
    )
    assert faults(allowed) == []
