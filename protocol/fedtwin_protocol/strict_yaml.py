"""YAML as people write it in plans, policies and mappings: a key given twice is an error.

YAML itself lets the last one win in silence, so that a line somebody wrote would count for nothing.
"""

from typing import Any

import yaml


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = [str(key) for key in dict.fromkeys(keys) if keys.count(key) > 1]
        if twice:
            raise yaml.YAMLError(f"the key '{twice[0]}' is given twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def load_strictly(text: str) -> Any:
    """The plain values of a YAML document.

    Raises:
        yaml.YAMLError: it is no YAML, or a key is given twice.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except (ValueError, RecursionError) as error:  # such as the 30th of February
        raise yaml.YAMLError(str(error)) from error
