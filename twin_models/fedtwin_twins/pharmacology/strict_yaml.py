"""YAML as people write it in model cards: a key given twice is an error.

YAML itself lets the last one win in silence, so that a line somebody wrote would count for nothing.
A few lines of references to references can stand for more values than any memory holds; they are
refused before a value is made.
"""

import math
from typing import Any, Final

import yaml

LARGEST_BY_REFERENCE: Final = 100_000
"""How many values references (`*name`) may add to those that are written."""


class _StrictLoader(yaml.SafeLoader):
    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _refuse_endless(node)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(
                    f"the key '{key.value}' is given twice, in line {lines[key.value]} and in line "
                    f"{line}: keep one of them"
                )
            lines[key.value] = line
        return super().construct_mapping(node, deep)


def load_strictly(text: str) -> Any:
    """The plain values of a YAML document.

    Raises:
        yaml.YAMLError: it is no YAML, a key is given twice, a value holds itself, or references
            add more than `LARGEST_BY_REFERENCE` values.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except (ValueError, RecursionError) as error:  # such as the 30th of February
        raise yaml.YAMLError(str(error)) from error


def _refuse_endless(root: yaml.Node) -> None:
    sizes: dict[yaml.Node, float] = {}
    if _size(root, sizes) > len(sizes) + LARGEST_BY_REFERENCE:
        raise yaml.YAMLError(
            f"its references (*name) add more than {LARGEST_BY_REFERENCE} values: write out what "
            "they stand for"
        )


def _size(node: yaml.Node, sizes: dict[yaml.Node, float]) -> float:
    """How many values a node stands for; without end if it holds itself."""
    if node not in sizes:
        sizes[node] = math.inf
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            inner = [one for pair in inner for one in pair]
        sizes[node] = 1.0 + sum(_size(one, sizes) for one in inner)
    return sizes[node]
