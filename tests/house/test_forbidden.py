"""What no part of the program may use: files that run code, and privacy figures that flatter.

- Pickles run whatever their writer put in; so do torch's and joblib's files, which are pickles.
- The GDP accountant states an epsilon below the true one for sampled steps; it is an approximation
  from below (Gopi, Lee and Wutschitz, 2021), so that a ledger must not go by it.
- Batches that are not drawn by Poisson sampling have no such accountant's guarantee at all.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("protocol", "twin_models", "client", "server", "research", "cli", "benchmarks")
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {
    *("torch.load", "torch.jit.load", "torch.hub.load", "eval", "exec"),
    *("yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "pd.read_pickle"),
}
OPTIONS = {
    "allow_pickle": (True,),
    "weights_only": (False,),
    "poisson_sampling": (False,),
    "accountant": ("gdp",),
}
NAMES = {"GaussianAccountant", "GDPAccountant", "compute_mu_poisson", "compute_mu_uniform"}


def forbidden_in(source: str) -> Iterator[str]:
    """Each forbidden thing in a module's source, with its line."""
    for node in ast.walk(ast.parse(source)):
        for what in found_in(node):
            yield f"{getattr(node, 'lineno', 0)}: {what}"


def found_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (item.name for item in node.names if item.name.partition(".")[0] in MODULES)
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if module.partition(".")[0] in MODULES:
            yield module
        whole = [f"{module}.{item.name}" for item in node.names]
        yield from (name for name in whole if name in CALLS)
        yield from (item.name for item in node.names if item.name in NAMES)
    elif isinstance(node, ast.Call):
        yield from called(node)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield node.attr


def called(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    if name in CALLS:
        yield f"{name}()"
    if name == "yaml.load" and len(node.args) < 2 and not node.keywords:
        yield "yaml.load() without a Loader"
    for option in node.keywords:
        value = option.value.value if isinstance(option.value, ast.Constant) else None
        if value is not None and value in OPTIONS.get(option.arg or "", ()):
            yield f"{option.arg}={value!r}"


def test_nothing_forbidden_is_used() -> None:
    guilty = [
        f"{path.relative_to(ROOT)}:{what}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for what in forbidden_in(path.read_text())
    ]
    assert guilty == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.externals as j",
        "from cloudpickle import loads",
        "from torch import load",
        "import torch\ntorch.load('x.pt')",
        "import numpy as np\nnp.load('x.npy', allow_pickle=True)",
        "torch.load_state(path, weights_only=False)",
        "engine.make_private(module=m, poisson_sampling=False)",
        "PrivacyEngine(accountant='gdp')",
        "from opacus.accountants import GaussianAccountant",
        "import opacus.accountants as a\na.GaussianAccountant()",
        "import yaml\nyaml.load(text)",
        "eval('1 + 1')",
    ],
)
def test_the_search_finds_each(source: str) -> None:
    assert list(forbidden_in(source))


def test_the_search_leaves_the_rest_alone() -> None:
    good = "import torch, json\njson.loads('1')\nmake(poisson_sampling=True, accountant='prv')"
    assert list(forbidden_in(good)) == []
