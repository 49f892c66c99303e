"""`--forgetguard base=X tuned=Y` becomes one token per pair, and nothing else changes."""

from __future__ import annotations

import pytest

from pytest_forgetguard.arguments import rewrite


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("-x tests", "-x tests"),
        ("--forgetguard base=a tuned=b", "--forgetguard=base=a --forgetguard=tuned=b"),
        ("t.py --forgetguard base=a", "t.py --forgetguard=base=a"),
        ("--forgetguard base=a t.py", "--forgetguard=base=a t.py"),
        ("--forgetguard base=a ./x=y", "--forgetguard=base=a ./x=y"),
        ("--forgetguard base=a -k x=y", "--forgetguard=base=a -k x=y"),
        ("--forgetguard t.py", "--forgetguard= t.py"),
        ("--forgetguard", "--forgetguard="),
        ("--forgetguard=base=a tuned=b", "--forgetguard=base=a --forgetguard=tuned=b"),
        ("--forgetguard base=o/r@v=1", "--forgetguard=base=o/r@v=1"),
        ("--forgetguard-seed 3 a=b", "--forgetguard-seed 3 a=b"),
        ("-- --forgetguard base=a", "-- --forgetguard base=a"),
    ],
)
def test_only_pairs_right_after_the_flag_are_taken(given: str, expected: str) -> None:
    args = given.split()
    rewrite(args)
    assert args == expected.split()


def test_rewriting_twice_changes_nothing_more() -> None:
    args = ["--forgetguard", "base=a", "tuned=b", "t.py"]
    rewrite(args)
    once = list(args)
    rewrite(args)
    assert args == once
