"""The table of measures is the registry's, on the page and on the command line."""

from __future__ import annotations

import re

import pytest

from examples.studies.measures import PAGE, rendered
from forgetguard.cli import main
from forgetguard.errors import SpecificationError
from forgetguard.measures import registry
from forgetguard.measures.measure import Estimator, Sampled

OWN = tuple(map(registry.find, registry.BUILT_IN))


def test_the_page_has_the_table_of_the_registry() -> None:
    page = PAGE.read_text("utf-8")
    assert rendered(page) == page, "run: python -m examples.studies.measures"


def test_the_command_lists_every_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measures"]) == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(key)} ", said, re.M) for key in registry.known())
    assert all(f".over_{name}" in said for name in registry.MODIFIERS)


def test_every_entry_makes_the_measure_that_it_names_and_says_how_it_is_read() -> None:
    for key, measure in zip(registry.BUILT_IN, OWN, strict=True):
        assert measure.key == key
        assert measure.about
        exact = measure.estimator is Estimator.EXACT
        assert exact == (measure.sampled is Sampled.NOTHING) == (measure.on_disk is not None)
        assert measure.read is None or measure.compare is not None
        assert measure.has_floor <= measure.needs_circuit
        assert measure.is_of_base == measure.key.startswith("gradient.conflict")


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("dcv.head", ("dcv.head", "")),
        ("dcv.head.over_reference", ("dcv.head", "reference")),
        ("rotation.over_baseline", ("rotation", "baseline")),
        ("dcv.over_there", ("dcv.over_there", "")),
    ],
)
def test_a_modifier_is_a_suffix_of_any_measure(key: str, parts: tuple[str, str]) -> None:
    assert registry.split(key) == parts


def test_an_unknown_measure_is_told_with_the_nearest() -> None:
    with pytest.raises(SpecificationError, match=r"'dcv\.circut'.*'dcv\.circuit'"):
        registry.find("dcv.circut")
    with pytest.raises(SpecificationError, match=r"'kl\.forward\.over_reference'"):
        registry.find("kl.forwrad.over_reference")
