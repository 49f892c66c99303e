"""Circuit distance, stability and conflict: against scipy, at both ends, and on bundled files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from examples.studies.circuit_distance import Circuit, apart, read, shared_by, stability, table
from forgetguard.anatomy.members import parse_member
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate import bundled

FOLDER = Path(bundled.__file__).parents[2] / "circuits"


def circuit(
    name: str, scores: dict[str, float], against: dict[str, float] | None = None
) -> Circuit:
    one, other = (
        {parse_member(member): score for member, score in given.items()}
        for given in (scores, against or {})
    )
    return Circuit(name, one, other, 100, None)


A = circuit("a", {"L0H1": 3.0, "L2H0": 1.0}, {"L5H5": -2.0})


def test_a_circuit_is_at_0_from_itself_and_at_1_from_one_that_shares_nothing() -> None:
    same, other = apart(A, A), apart(A, circuit("b", {"L4H1": 1.0}))
    assert (same.jaccard, same.effects, same.layers, same.conflict) == (0, 0, 0, ())
    assert (other.jaccard, other.effects, other.shared) == (1, 1, ())
    assert same.overlap is not None
    assert same.overlap.corrected == 1


def test_the_numbers_of_two_circuits() -> None:
    b = circuit("b", {"L0H1": -1.0, "L5H5": 1.0, "L2MLP": 2.0})
    found = apart(A, b)
    assert found.jaccard == pytest.approx(3 / 4)
    assert found.effects == pytest.approx((0.5 + 0.25 + 0.25 + 0.5) / 2)
    layers = wasserstein_distance([0, 2], [0, 5, 2], [3, 1], [1, 1, 2])
    assert found.layers == pytest.approx(layers)
    assert list(map(str, found.conflict)) == ["L0H1", "L5H5"]
    back = apart(b, A)
    assert (back.jaccard, back.effects, back.layers) == (found.jaccard, found.effects, found.layers)


def test_members_of_most_circuits_come_first() -> None:
    others = [circuit("b", {"L2H0": 1.0, "L9H9": 1.0}), circuit("c", {"L2H0": 1.0, "L0H1": 1.0})]
    found = shared_by([A, *others])
    assert {str(one): names for one, names in found.items()} == {
        "L2H0": ("a", "b", "c"),
        "L0H1": ("a", "c"),
    }
    assert str(next(iter(found))) == "L2H0"


def test_stability_is_1_without_spread_and_falls_with_it() -> None:
    effects = np.linspace(0.1, 2, 20)[:, None].repeat(40, axis=1)
    noise = np.random.default_rng(0).normal(size=effects.shape)
    read = [stability(effects + size * noise, 5) for size in (0.0, 0.5, 2.0, 20.0)]
    assert read[0] == 1
    assert read == sorted(read, reverse=True)
    # A bootstrap keeps much of any sample's own order: far above two random sets of 5 of 20.
    assert read[-1] < 0.6
    with pytest.raises(MeasurementError, match="at least two pairs"):
        stability(effects[:, :1], 5)


def test_bundled_circuits_are_read_with_their_effects(tmp_path: Path) -> None:
    names = [FOLDER / f"smollm2-135m-instruct-{one}.circuit.yaml" for one in ("induction", "ioi")]
    one, other = map(read, names)
    assert (one.universe, other.halves) == (270, 1.0)
    found = apart(one, other)
    assert list(map(str, found.shared)) == ["L17H4", "L23H7", "L29H1"]
    assert "3 (0.3, 0.002), 0.82, 0.76, 1.2" in table([one, other])
    with pytest.raises(SpecificationError, match="names no circuit"):
        read(FOLDER / "auto-ioi.circuit.yaml")
