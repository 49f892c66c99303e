"""The clean prompts go through each model once, whatever is asked of them: counted, prompt by
prompt; and what measures read in that pass does not depend on what else was asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gated import PROMPTS
from plain_tiny import logits_after, streams_after

from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import MeasurementError
from forgetguard.gate.declaration import GateSpec, Limit
from forgetguard.gate.schema import load_gate_file, parse_gate
from forgetguard.gate.session import GateSession
from forgetguard.measures import divergence, registry
from forgetguard.measures.measure import Measure, Opened, Sampled, Unit
from forgetguard.measures.prompt_pass import Reader
from forgetguard.measures.samples import Key, Samples

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = load_gate_file(Path(__file__).parents[2] / "circuits" / "tiny-ioi.circuit.yaml")
# Its first head is in layer 1, so that there is a layer below it that may be kept between runs.
SPEC = replace(FILE, fits=None, members=tuple(one for one in FILE.members if one.layer))
BEHAVIOUR = ("readout.drop", "accuracy.drop", "margin.drop")
OF_PROMPTS = ("kl.forward", "kl.reverse", "mode.mass", "mode.drift", "cka.layer", "drift.layer")
Ran = dict[str, Counter[tuple[int, ...]]]  # by role, how often a model was given which ids


def asking(spec: GateSpec, *keys: str) -> GateSpec:
    return replace(spec, limits=tuple(Limit(key, 0.5) for key in keys))


def measured(
    spec: GateSpec, cache: Path | None = None, **others: str
) -> tuple[Samples, Ran, GateSession]:
    """What one stage reads; `others`: a reference, by role."""
    given = {"base": "tiny:base", "tuned": "tiny:sft"} | others
    specs = {role: resolve(where, role) for role, where in given.items()}
    pair, ran = ModelPair(specs, placement="resident"), {}
    for checkpoint in pair.checkpoints:
        counted = ran[checkpoint.role] = Counter[tuple[int, ...]]()

        def count(_: Any, args: Any, into: Counter[tuple[int, ...]] = counted) -> None:
            into.update(map(tuple, args[0].tolist()))

        with checkpoint.open() as model:
            model.get_input_embeddings().register_forward_pre_hook(count)
    session = GateSession(pair, [spec], cache=cache, keep=cache is not None)
    session._up_to(session._ready(spec), 0)  # no heads one by one, whatever fails
    found = session.measured(spec)
    assert found is not None
    return found[1], ran, session


def test_what_else_is_asked_of_the_clean_prompts_adds_no_pass_to_dcvs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, alone, session = measured(asking(SPEC, "dcv.circuit"))
    pairs = session._plans[SPEC.name].pairs
    assert pairs is not None
    clean = Counter(one.ids for one in session._plans[SPEC.name].whole.passages)
    assert set(clean.values()) == {1}
    first = tuple(pairs.batches[0].clean[0].tolist())  # that heads add up is checked on it
    assert alone["tuned"] == clean + Counter([first])
    compared: list[int] = []  # logits of how many positions, for KL and modes together
    plain = divergence.token_divergence

    def counted(*both: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        compared.append(len(both[0]))
        return plain(*both)

    monkeypatch.setattr(divergence, "token_divergence", counted)
    many, ran, _ = measured(asking(SPEC, "dcv.circuit", *BEHAVIOUR, *OF_PROMPTS))
    assert ran == alone
    assert sum(compared) == clean.total()
    assert all(np.array_equal(values, many.arrays[key]) for key, values in few.arrays.items())


def test_prompts_without_counterfactuals_go_through_each_model_once_too() -> None:
    spec = asking(
        parse_gate(
            f"forgetguard: 2\n{PROMPTS}limits: {{kl.forward: {{max: 1}}}}\n", Path("a.gate.yaml")
        ),
        *OF_PROMPTS,
    )
    _, ran, session = measured(spec, reference="tiny:rl")
    clean = Counter(one.ids for one in session._plans[spec.name].whole.passages)
    assert ran == dict.fromkeys(("base", "tuned", "reference"), clean)


def test_what_is_read_on_the_way_is_what_plain_transformers_read() -> None:
    samples, _, _ = measured(asking(SPEC, *OF_PROMPTS))
    for number in (0, len(samples.units) - 1):
        text = samples.units[number].clean
        base, tuned = (logits_after(one, text).double().log_softmax(-1) for one in ("base", "sft"))
        expected = (base.exp() * (base - tuned)).sum().item()
        found = samples.arrays[Key("kl.forward", "", "tuned")][number]
        assert found == pytest.approx(expected, rel=1e-3)
        before, after = (streams_after(one, text) for one in ("base", "sft"))
        moved = (after - before).norm(dim=-1) / before.norm(dim=-1)
        drift = [
            samples.arrays[Key("drift.layer", f"layer {one}", "tuned")][number]
            for one in range(len(moved))
        ]
        assert drift == pytest.approx(moved.tolist(), rel=1e-3)


@pytest.mark.parametrize("keys", [("kl.forward",), ("kl.forward", "cka.layer", "drift.layer")])
def test_layers_kept_between_runs_change_no_bit_of_them(
    keys: tuple[str, ...], tmp_path: Path
) -> None:
    """Streams cannot be read where the layers below a circuit are not run."""
    plain, *_ = measured(asking(SPEC, *keys))
    measured(asking(SPEC, "dcv.circuit"), tmp_path)
    kept, *_ = measured(asking(SPEC, *keys), tmp_path)
    assert plain.arrays.keys() == kept.arrays.keys()
    assert all(np.array_equal(kept.arrays[key], one) for key, one in plain.arrays.items())


def failing(model: Opened) -> Reader[None]:
    def take(*_: Any) -> None:
        raise IndexError("no such thing")

    return Reader(take, lambda: None, len(model.passages))


def test_what_one_measure_cannot_take_stops_its_own_limits_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too little memory for logits, and a defect in a measure of another distribution."""
    monkeypatch.setattr(divergence, "MEMORY_BYTES", 1000)
    foreign = Measure(
        "bad.take",
        "",
        Unit("nats"),
        Sampled.PROMPTS,
        watch=lambda model, _: model.once(failing),
        compare=lambda base, _: {"": np.zeros(len(base.passages))},
        source="elsewhere",
    )
    monkeypatch.setattr(
        registry,
        "find",
        lambda key, plain=registry.find: foreign if key == "bad.take" else plain(key),
    )
    limits = ("dcv.circuit", "margin.drop", "cka.layer", "kl.forward", "bad.take")
    spec = asking(SPEC, *limits)
    *_, session = measured(spec)
    for limit in spec.limits[:3]:
        assert session.judge(spec, limit).estimate is not None
    for limit, said in zip(spec.limits[3:], ("GiB", "IndexError"), strict=True):
        with pytest.raises(MeasurementError, match=said):
            session.judge(spec, limit)
