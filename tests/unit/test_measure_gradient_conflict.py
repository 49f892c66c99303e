"""`gradient.conflict*` from YAML: against a naive loop over plain transformers, of one task with
itself, and with more and more of its answers turned round."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gated import gated
from plain_tiny import plain_model, plain_tokenizer

from forgetguard.anatomy.locate import locate
from forgetguard.capabilities.pairs import Prompt
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate.rule import judge
from forgetguard.gate.schema import dump, parse_gate
from forgetguard.gate.stages import encode
from forgetguard.gate.verdict import Code, Outcome, Verdict
from forgetguard.measures.gradient_conflict import SHARES
from forgetguard.measures.interference import cosines
from forgetguard.measures.samples import Key, Samples

PROMPTS = Path(__file__).parents[2] / "circuits" / "prompts"
HEAD = "gradient.conflict.head"
Rows = list[dict[str, str]]


def rows(task: str, count: int = 8) -> Rows:
    lines = (PROMPTS / f"tiny-{task}.jsonl").read_text().splitlines()[:count]
    pairs = map(json.loads, lines)
    return [{"prompt": one["clean"], "completion": one["answer"]} for one in pairs]


def gate(prior: Rows, new: Rows, *keys: str) -> str:
    limits = ", ".join(f"{key}: {{max: 0.1}}" for key in keys)
    return (
        f"forgetguard: 2\nprompts: {json.dumps(prior)}\nnew_task: {json.dumps(new)}\n"
        f"limits: {{{limits}}}\n"
    )


def mean_gradient(given: Sequence[dict[str, str]]) -> dict[str, torch.Tensor]:
    """Of the mean over prompts of the loss on their completions, one by one, float64."""
    model, encode = plain_model("base"), plain_tokenizer()
    named = dict(model.named_parameters())
    total = {name: torch.zeros(one.shape, dtype=torch.float64) for name, one in named.items()}
    for row in given:
        prompt, whole = (encode(text).input_ids for text in (row["prompt"], "".join(row.values())))
        logits = model(torch.tensor([whole])).logits[0, len(prompt) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(whole[len(prompt) :]))
        for name, one in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
            total[name] += one.double() / len(given)
    return total


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(one.flatten() @ other.flatten() / (one.norm() * other.norm()))


def test_the_conflict_is_that_of_a_naive_loop_in_the_whole_in_a_matrix_and_in_a_head() -> None:
    prior, new = rows("ioi"), rows("fact_recall", 5)
    keys = ("gradient.conflict", "gradient.conflict.matrix", "gradient.conflict.head")
    _, samples = gated(gate(prior, new, *keys), tuned="tiny:sft")

    def flat(given: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([one.flatten() for one in given.values()])

    def head(given: dict[str, torch.Tensor]) -> torch.Tensor:
        q, o = (given[f"model.layers.2.self_attn.{one}_proj.weight"] for one in "qo")
        return torch.cat([q[16:32].flatten(), o[:, 16:32].flatten()])

    matrix = "model.layers.1.mlp.down_proj"
    parts = {
        ("gradient.conflict", ""): flat,
        ("gradient.conflict.matrix", matrix): lambda given: given[f"{matrix}.weight"],
        ("gradient.conflict.head", "L2H1"): head,
    }
    theirs, whole = mean_gradient(new), mean_gradient(prior)
    step = 1e-6  # more weight on one prompt: the influence is a derivative
    for (key, subject), part in parts.items():
        one, other = part(whole), part(theirs)
        found = -samples.arrays[Key(key, subject, "tuned")]
        assert found.mean() == pytest.approx(cosine(one, other), abs=1e-5)
        for at in (0, 5):
            weighted = one + step * (part(mean_gradient(prior[at : at + 1])) - one)
            slope = (cosine(weighted, other) - cosine(one, other)) / step
            assert found[at] - found.mean() == pytest.approx(slope, abs=1e-3)
    assert len(samples.subjects("gradient.conflict.head")) == 24


def with_wrong_answers(given: Rows) -> Rows:
    """Each prompt with the next one's answer: the base is uncertain of all of them alike."""
    answers = [row["completion"] for row in given]
    return [row | {"completion": answers[(at + 1) % len(given)]} for at, row in enumerate(given)]


def test_one_task_with_itself_is_no_conflict_and_other_answers_make_it_one() -> None:
    right = rows("ioi", 32)
    prior = with_wrong_answers(right)

    def conflict(turned: int) -> float:
        new = [*right[:turned], *prior[turned:]]
        verdicts, samples = gated(gate(prior, new, "gradient.conflict"), tuned="tiny:sft")
        expected = Outcome.FAIL if turned == 32 else Outcome.PASS
        assert verdicts["gradient.conflict"].outcome is expected
        assert samples.arrays[Key(SHARES, "", "tuned")].sum() == pytest.approx(1)
        return float(samples.arrays[Key("gradient.conflict", "", "tuned")].mean())

    found = [conflict(turned) for turned in (8, 24, 32)]
    assert found == sorted(found)
    with pytest.raises(MeasurementError, match="new_task"):
        conflict(0)  # the same prompts: -1 by definition, and nothing compared
    spec = parse_gate(gate(prior, rows("key_value"), "gradient.conflict"), Path("a.gate.yaml"))
    specs = {"base": resolve("tiny:base", "base"), "tuned": resolve("tiny:sft", "tuned")}
    with ModelPair(specs) as pair:
        part = encode(spec, pair).parts[0]
        with pair.base.open() as model:
            alike = cosines(locate(model), part.passages, part.passages)["", ""]
    assert alike.values.tolist() == pytest.approx([1.0] * 32, abs=1e-6)


def test_where_one_prompt_makes_the_gradient_nothing_is_judged() -> None:
    keys = "gradient.conflict", "gradient.conflict.head", "gradient.conflict.over_reference"
    prior = rows("ioi", 32)
    verdicts, samples = gated(
        gate(prior, with_wrong_answers(prior), *keys), tuned="tiny:sft", reference="tiny:rl"
    )
    shares = samples.arrays[Key(SHARES, "", "tuned")]
    whole, heads, apart = (verdicts[key] for key in keys)
    assert whole.code is Code.FEW_CARRY
    assert whole.not_judged
    assert whole.estimate is not None
    assert whole.estimate.interval == (-1.0, 1.0)
    assert whole.facts["share"] == shares.max() > 0.8
    assert whole.facts["effective"] == pytest.approx(1 / (shares**2).sum())
    assert whole.detectable is None
    assert heads.code is Code.FEW_CARRY
    assert len(heads.facts["others"]) == 23
    # The base's own number is the same whatever tuned is: its difference is exact.
    assert apart.outcome is Outcome.PASS


def test_a_head_that_few_prompts_carry_hides_no_conflict_of_another() -> None:
    values = np.stack([np.full(32, 0.9), np.full(32, 0.1)]) + np.linspace(-0.1, 0.1, 32)
    shares = np.stack([np.full(32, 1 / 32), np.r_[0.9, np.full(31, 0.1 / 31)]])
    units = tuple(Prompt(f"prompt {at}", "yes") for at in range(32))
    spec = parse_gate(gate(rows("ioi"), rows("key_value"), HEAD), Path("a.gate.yaml"))

    def judged(*order: int) -> Verdict:
        arrays = {
            Key(key, f"L0H{at}", "tuned"): given[one]
            for at, one in enumerate(order)
            for key, given in ((HEAD, values), (SHARES, shares))
        }
        return judge(spec, spec.limits[0], Samples(units, arrays))

    assert (judged(0, 1).outcome, judged(0, 1).subject) == (Outcome.FAIL, "L0H0")
    assert judged(1, 1).code is Code.FEW_CARRY


def test_over_a_baseline_of_another_new_task_few_prompts_carry_the_difference_too() -> None:
    units = tuple(Prompt(f"prompt {at}", "yes") for at in range(32))
    few = np.r_[0.9, np.full(31, 0.1 / 31)]
    text = gate(rows("ioi"), rows("key_value"), "gradient.conflict.over_baseline")
    spec = parse_gate(text, Path("a.gate.yaml"))

    def judged(then: float) -> Verdict:
        arrays = {
            Key(key, "", role): given
            for role, value in (("tuned", -0.2), ("baseline", then))
            for key, given in (("gradient.conflict", np.full(32, value)), (SHARES, few))
        }
        return judge(spec, spec.limits[0], Samples(units, arrays))

    assert judged(0.1).code is Code.FEW_CARRY
    assert judged(-0.2).outcome is Outcome.PASS


def test_what_was_measured_without_the_shares_says_so() -> None:
    units = tuple(Prompt(f"prompt {at}", "yes") for at in range(32))
    spec = parse_gate(gate(rows("ioi"), rows("key_value"), HEAD), Path("a.gate.yaml"))
    samples = Samples(units, {Key(HEAD, "L0H0", "tuned"): np.full(32, 0.1)})
    with pytest.raises(MeasurementError, match="older version"):
        judge(spec, spec.limits[0], samples)


def test_the_new_task_is_asked_for_where_it_is_declared_and_written_back() -> None:
    text = gate(rows("ioi"), rows("key_value"), "gradient.conflict")
    spec = parse_gate(text, Path("a.gate.yaml"))
    assert parse_gate(dump(spec), Path("a.gate.yaml")) == spec
    lacking = "\n".join(line for line in text.splitlines() if not line.startswith("new_task"))
    with pytest.raises(
        SpecificationError, match=r"a\.gate\.yaml:3: .*gradient\.conflict .*new_task"
    ):
        parse_gate(lacking, Path("a.gate.yaml"))


@pytest.mark.parametrize("key", ["prompts", "new_task"])
def test_prompts_without_a_completion_are_told_where_they_are_declared(key: str) -> None:
    given = {"prompts": rows("ioi"), "new_task": rows("key_value")}
    given[key].append({"prompt": "The capital of France is"})
    text = gate(given["prompts"], given["new_task"], "gradient.conflict", "drift.layer")
    with pytest.raises(SpecificationError, match=rf"a\.gate\.yaml:4: .*completion.*{key} 1 "):
        parse_gate(text, Path("a.gate.yaml"))
