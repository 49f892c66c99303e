"""Discovery methods by name, and the settings that they take."""

from __future__ import annotations

import inspect
from functools import partial

import pytest

from forgetguard.capabilities.variants import halves
from forgetguard.discovery.methods import METHODS, SHORT, full_name, method
from forgetguard.discovery.on_checkpoint import Search
from forgetguard.discovery.ranking import Ranking
from forgetguard.errors import SpecificationError

COMMON = ["anatomy", "capability", "members", "seed", "progress", "saved"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_imported_and_is_called_like_the_others(name: str) -> None:
    found = method(name)
    assert isinstance(found, partial)
    parameters = inspect.signature(found.func).parameters
    assert list(parameters)[:6] == COMMON
    for place, parameter in enumerate(parameters.values()):
        keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert keyword == (place >= 3), parameter
        assert place < 3 or parameter.default is not inspect.Parameter.empty, parameter
    assert inspect.getdoc(found.func)


@pytest.mark.parametrize(("short", "full"), SHORT.items())
def test_a_short_name_stands_for_a_method(short: str, full: str) -> None:
    assert full in METHODS
    assert short not in METHODS
    assert full_name(short) == full
    assert full_name(full) == full


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    for call in (full_name, method, Search):
        with pytest.raises(SpecificationError, match="'magic'") as caught:
            call("magic")
        for name in (*METHODS, *SHORT):
            assert name in str(caught.value)


def test_a_setting_is_handed_to_the_method() -> None:
    found = method("activation", {"direction": "denoising"})
    assert isinstance(found, partial)
    assert found.keywords == {"direction": "denoising"}
    assert method("activation_patching").keywords == {}  # type: ignore[attr-defined]


def test_an_unknown_setting_is_refused_with_those_there_are() -> None:
    with pytest.raises(SpecificationError, match=r"'way'.* direction"):
        method("activation", {"way": 1})
    with pytest.raises(SpecificationError, match=r"random .*'a', 'b'"):
        method("random", {"b": 1, "a": 2})


@pytest.mark.parametrize("name", COMMON)
def test_what_every_method_is_given_is_no_setting(name: str) -> None:
    with pytest.raises(SpecificationError, match="no setting"):
        method("activation_patching", {name: 1})


@pytest.mark.parametrize("faithful", [0.0, -1.0, 1.01, float("nan")])
def test_a_faithfulness_that_no_circuit_can_have_is_refused(faithful: float) -> None:
    with pytest.raises(SpecificationError, match="faithful"):
        Search(faithful=faithful)


def test_a_search_is_refused_where_it_is_made() -> None:
    with pytest.raises(SpecificationError, match="'noise'"):
        Search(ablation="noise")
    with pytest.raises(SpecificationError, match="direction"):
        Search(settings={"direction": "noising"})
    with pytest.raises(SpecificationError, match="'steps'"):
        Search("activation", settings={"steps": 3})


def test_a_random_order_is_drawn_with_the_seed_and_looks_at_nothing() -> None:
    from random_pairs import random_capability

    from forgetguard.anatomy.members import Head

    heads = tuple(Head(layer, index) for layer in range(4) for index in range(4))
    first, _ = halves(random_capability(16))

    def drawn(seed: int, members: tuple[Head, ...] = heads) -> Ranking:
        return method("random")(None, first, members, seed=seed)  # type: ignore[arg-type]

    assert drawn(0).order == drawn(0, heads[::-1]).order
    assert drawn(0).order != drawn(1).order
    assert sorted(drawn(0).order) == sorted(heads)
    scores = list(drawn(0).scores.values())
    assert scores == sorted(scores, reverse=True)
    assert (scores[0], scores[-1]) == (1.0, 0.0)
    assert drawn(0, heads[:1]).scores == {heads[0]: 1.0}
