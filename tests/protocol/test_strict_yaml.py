"""YAML of plans, policies and mappings: what would be lost or never end is refused."""

import time

import pytest
import yaml

from fedtwin_protocol.strict_yaml import load_strictly


def doubling(levels: int) -> str:
    """Lines of references, each of which stands for two of the line before."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("b: 1\na: 1\n\na: 2\n", "the key 'a' is given twice, in line 2 and in line 4: keep one"),
        ("b: {c: 1,\n  c: 1}\n", "the key 'c' is given twice, in line 1 and in line 2"),
        ("a: 2026-02-30\n", "day is out of range"),
        (f"a: {'9' * 5000}\n", "integer string conversion"),
        ("[" * 3000, "recursion"),
        ("a: &a [*a]\n", "write out what they stand for"),
        ("a: &a {b: *a}\n", "write out what they stand for"),
        (doubling(40), "write out what they stand for"),
    ],
)
def test_what_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(yaml.YAMLError, match=sentence):
        load_strictly(text)


def test_references_that_save_writing_are_read() -> None:
    text = "one: &tablet {step: 0.5, most: 10}\ntwo: *tablet\nthree: {<<: *tablet, most: 20}\n"
    tablet = {"step": 0.5, "most": 10}
    assert load_strictly(text) == {"one": tablet, "two": tablet, "three": tablet | {"most": 20}}
    assert len(load_strictly(doubling(10))) == 10
    assert load_strictly("") is None


def test_time_grows_with_the_number_of_keys_and_not_with_its_square() -> None:
    def seconds(keys: int) -> float:
        text = "\n".join(f"k{n}: 1" for n in range(keys))
        start = time.process_time()
        assert len(load_strictly(text)) == keys
        return time.process_time() - start

    seconds(100)
    assert seconds(8_000) < 40 * seconds(1_000)
