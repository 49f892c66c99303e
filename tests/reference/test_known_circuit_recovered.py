"""Known answers: every algorithm recovers, exactly, a circuit that was set by hand."""

from __future__ import annotations

from typing import Any

import known_circuit
import pytest

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.discovery.circuit import find_circuit
from forgetguard.discovery.curve import faithfulness_curve
from forgetguard.discovery.methods import METHODS, method
from forgetguard.discovery.on_checkpoint import check
from forgetguard.errors import CapabilityError

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = 48
# Fewer steps of masking than by default, to be quick.
EVERY: list[tuple[str, dict[str, Any]]] = [
    ("activation_patching", {}),
    ("activation_patching", {"direction": "denoising"}),
    ("attribution_patching", {}),
    ("attribution_patching", {"verify": 0.0, "audit": 0}),
    ("attribution_patching", {"nodes": "qkv"}),
    ("integrated_gradients", {}),
    ("binary_masking", {"steps": 150}),
    ("desiderata_masking", {"steps": 150}),
]


@pytest.fixture(scope="module", params=[False, True], ids=["heads", "heads and an MLP"])
def known(request: pytest.FixtureRequest) -> tuple[Anatomy, EncodedCapability, bool]:
    model, tokenizer = known_circuit.build(mlp=request.param)
    encoded = known_circuit.capability(PAIRS, 0).encoded(tokenizer)
    return locate(model), encoded, request.param


def test_no_method_is_left_out() -> None:
    assert {name for name, _ in EVERY} == set(METHODS) - {"random"}


@pytest.mark.parametrize(("name", "settings"), EVERY)
def test_every_method_recovers_the_circuit_exactly(
    name: str, settings: dict[str, Any], known: tuple[Anatomy, EncodedCapability, bool]
) -> None:
    anatomy, encoded, mlp = known
    expected = known_circuit.CIRCUIT_WITH_MLP if mlp else known_circuit.CIRCUIT
    found = find_circuit(anatomy, encoded, method(name, settings), anatomy.members(mlps=mlp))
    assert found.circuit == expected
    assert found.faithfulness == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_set_of_that_size_is_no_circuit(
    seed: int, known: tuple[Anatomy, EncodedCapability, bool]
) -> None:
    anatomy, encoded, mlp = known
    members = anatomy.members(mlps=mlp)
    expected = known_circuit.CIRCUIT_WITH_MLP if mlp else known_circuit.CIRCUIT
    order = method("random")(anatomy, encoded, members, seed=seed).order
    curve = faithfulness_curve(anatomy, encoded, order)
    needed = 1 + max(order.index(member) for member in expected)
    assert needed > len(expected), "a lucky seed: choose others"
    assert curve.at(len(expected)) < 0.1
    # Nothing but the whole circuit does it: faithfulness jumps where its last member comes in.
    assert curve.at(needed - 1) < 0.1
    assert curve.at(needed) > 0.9


def test_prompts_that_are_longer_than_the_model_are_refused_before_it_runs() -> None:
    model, tokenizer = known_circuit.build()
    words = known_circuit.WORDS
    pairs = [
        PromptPair(
            " ".join(["Words", *words[:15], words[i]]),
            " ".join(["Words", *words[:15], words[i + 2]]),
            f" {words[i + 1]}",
            f" {words[i + 3]}",
        )
        for i in range(10)
    ]
    encoded = Capability("long", pairs=tuple(pairs)).encoded(tokenizer)
    anatomy = locate(model)
    with pytest.raises(CapabilityError, match="a prompt has 17 tokens and the model 16 positions"):
        check(anatomy, encoded, anatomy.heads)
