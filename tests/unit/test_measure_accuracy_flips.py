"""`accuracy.flips` from YAML: against plain transformers pair by pair, of equal models, of planted
damage, and over other models; and its interval where templates flip together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gated import gated
from known_samples import measured, spec
from plain_tiny import ids_of, logits_after
from tiny_copies import copy_of_base
from torch import Tensor

from forgetguard.gate import accuracy
from forgetguard.gate.accuracy import BoolArray
from forgetguard.gate.declaration import Limit
from forgetguard.gate.rule import judge
from forgetguard.gate.schema import parse_gate
from forgetguard.gate.verdict import Code, Outcome, Verdict
from forgetguard.measures.accuracy_flips import KEY
from forgetguard.measures.samples import CORRECT, COUNTERFACTUAL, READOUT, FloatArray, Key, Samples
from forgetguard.report import wording

GATE = """\
forgetguard: 2
capability: induction
pairs: {task: induction, count: 48, seed: 3}
readout: READOUT
limits: {accuracy.flips: {max: 0.1}, accuracy.flips.over_reference: {max: 0.1}}
"""

ALONE = GATE.replace("READOUT", "logit_diff").replace(
    ", accuracy.flips.over_reference: {max: 0.1}", ""
)


def right(model: str, clean: str, answer: str, distractor: str | None, readout: str) -> bool:
    first, other = (int(ids_of(f"{clean}{text}")[0, -1]) for text in (answer, distractor or answer))
    logits = logits_after(model, clean)
    if readout == "logit_diff":
        return bool(logits[first] > logits[other])
    return int(logits.argmax()) == first


def without_attention(tensors: dict[str, Tensor]) -> None:
    for name, one in tensors.items():
        if "o_proj" in name:
            one.zero_()


@pytest.mark.parametrize(("readout", "chance"), [("logit_diff", 0.5), ("logprob", 0.0)])
def test_it_is_what_a_loop_over_pairs_counts(readout: str, chance: float) -> None:
    text = GATE.replace("READOUT", readout)
    verdicts, samples = gated(text, tuned="tiny:sft", reference="tiny:sft")
    base, tuned = (
        np.array([right(name, one.clean, one.answer, one.distractor, readout)
                  for one in samples.units])
        for name in ("base", "sft")
    )  # fmt: skip
    lost, won = int((base & ~tuned).sum()), int((~base & tuned).sum())
    assert lost >= 2
    held = max(lost - won, lost - chance * (~base).sum()) / 48
    found = verdicts["accuracy.flips"]
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(held, abs=1e-12)
    note = next(one for one in found.notes if one.code == "scores")
    assert (note.facts["lost"], note.facts["won"]) == (lost, won)
    assert f"accuracy: {base.mean():.1%} to {tuned.mean():.1%} on 48 pairs" in wording.note(note)
    over = verdicts["accuracy.flips.over_reference"].estimate
    assert over is not None
    assert over.value == 0


def test_a_byte_copy_has_none_and_planted_damage_fails(tmp_path: Path) -> None:
    zero = ALONE.replace("max: 0.1", "max: 0")
    same = gated(zero, tuned=copy_of_base(tmp_path / "same"))[0]["accuracy.flips"]
    assert same.outcome is Outcome.PASS
    assert same.estimate is not None
    assert (same.estimate.value, *same.estimate.interval) == (0, 0, 0)
    broken, samples = gated(ALONE, tuned=copy_of_base(tmp_path / "broken", without_attention))
    found = broken["accuracy.flips"]
    assert found.code is Code.BEYOND
    flipped = samples.need(CORRECT, role="base") > samples.need(CORRECT)
    assert {one.clean for one in found.units} <= {
        samples.units[at].clean for at in np.flatnonzero(flipped)
    }
    assert len(found.units) == 5
    assert any(one.code == "said_instead" for one in found.notes)
    # What a baseline recorded is taken off pair by pair.
    recorded = samples.with_arrays(
        {
            Key(name, "", "baseline"): samples.need(name)
            for name in (CORRECT, READOUT, "accuracy.flips")
        }
    )
    spec = parse_gate(ALONE.replace("flips:", "flips.over_baseline:"), Path("a.gate.yaml"))
    again = judge(spec, spec.limits[0], recorded)
    assert again.outcome is Outcome.PASS
    assert again.estimate is not None
    assert again.estimate.value == 0


def test_a_model_that_guesses_anew_has_flips_that_are_not_held_against_it() -> None:
    _, samples = gated(ALONE, tuned="tiny:lora")
    spec = parse_gate(ALONE, Path("a.gate.yaml"))
    # Of 48 pairs the base knows 32 and guesses 16, half of them right; tuned guesses these anew.
    known = np.ones(32)
    base = np.r_[known, np.tile([1.0, 1.0, 0.0, 0.0], 4)]
    tuned = np.r_[known, np.tile([1.0, 0.0, 1.0, 0.0], 4)]
    made = samples.with_arrays({Key(CORRECT, "", "base"): base, Key(CORRECT, "", "tuned"): tuned})
    found = judge(spec, spec.limits[0], made)
    assert found.estimate is not None
    assert found.estimate.value == 0  # 4 lost, 4 won: 4 flips in 48 are what guessing makes
    assert found.outcome is Outcome.ABSTAIN
    lost = judge(spec, spec.limits[0], replace(made, arrays=made.arrays | {
        Key(CORRECT, "", "tuned"): np.r_[np.zeros(16), tuned[16:]]}))  # fmt: skip
    assert lost.code is Code.BEYOND


def samples_of(base: BoolArray, tuned: BoolArray, chance: float, **others: BoolArray) -> Samples:
    data = measured(len(base))
    arrays: dict[Key, FloatArray] = {}
    for role, right in {"base": base, "tuned": tuned, **others}.items():
        arrays[Key(CORRECT, "", role)] = right.astype(float)
        level = 3.0 if chance else -1.0
        arrays[Key(READOUT, "", role)] = level + np.linspace(0, 0.3, len(base)) + 0.1 * right
        arrays[Key(COUNTERFACTUAL, "", role)] = np.full(len(base), level - 5)
        arrays[Key(KEY, "", role)] = np.full(len(base), chance)
    return data.with_arrays(arrays)


@pytest.mark.parametrize(("readout", "chance"), [("logit_diff", 0.5), ("logprob", 0.0)])
def test_over_a_reference_the_pairs_that_it_alone_learned_count_in_the_net_loss(
    readout: str, chance: float
) -> None:
    base = np.arange(48) < 36
    data = samples_of(base, base, chance, reference=np.ones(48, dtype=bool))
    outcomes = {
        judge(spec(readout=readout), Limit(f"accuracy.{key}.over_reference", 0.1), data).outcome
        for key in ("flips", "drop")
    }
    assert outcomes == {Outcome.FAIL}


@pytest.mark.parametrize(("readout", "chance"), [("logit_diff", 0.5), ("logprob", 0.0)])
@pytest.mark.parametrize(("pairs", "lost", "limit"), [(48, 3, 0.1), (64, 2, 0.1), (200, 4, 0.05)])
def test_from_what_is_called_detectable_on_four_of_five_fail(
    readout: str, chance: float, pairs: int, lost: int, limit: float
) -> None:
    right, rng = np.ones(pairs, dtype=bool), np.random.default_rng(pairs)

    def verdict(tuned: BoolArray) -> Verdict:
        data = samples_of(right, tuned, chance)
        return judge(spec(readout=readout), Limit("accuracy.flips", limit), data)

    said = verdict(np.arange(pairs) >= lost).detectable
    assert said is not None
    found = [verdict(rng.random(pairs) >= said).outcome for _ in range(150)]
    assert 0.7 < found.count(Outcome.FAIL) / 150 < 0.92


def test_pairs_of_one_template_that_flip_together_tell_less() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), 4)
    missed = {"templates": 0, "pairs": 0}
    for _ in range(400):
        share = rng.beta(0.5, 2, size=12)  # of 0.2 on average, from template to template
        lost = (rng.random(48) < share[clusters]).astype(float)
        for name, given in (("templates", clusters), ("pairs", None)):
            missed[name] += accuracy.flips(lost, 0.5, clusters=given).high < 0.2
    assert missed["templates"] < 0.09 * 400 < missed["pairs"]
