"""Cost of circuit discovery, as ratios in one run.

    python benchmarks/discovery.py                          # 64 pairs, 32 tokens, all 144 heads
    python benchmarks/discovery.py --pairs 8 --most 2       # a quick look
    python benchmarks/discovery.py --shared 16              # pairs agree in their first 16 tokens

A 12-layer, 12-head, d=768 decoder (vocabulary 32,000, random weights), pairs of random prompts,
logit difference at the last position. Part one, screening:

    exact          activation_patching of all heads: one wavefront
    of the floor   exact against the arithmetic of the recomputed suffixes alone (wavefront.py)
    attribution    attribution_patching without verification and audit: one forward and backward
                   pass, and one forward pass of the counterfactual prompts
    integrated     integrated_gradients in 5 steps

Part two, masking: a step of binary_masking against one ordinary forward and backward pass.

Machines are noisy: the variants take turns, exact patching on one part of the heads at a time (the
approximations cost the same for one head as for all). What exact patching does once, whatever the
number of heads, is timed apart and counted once. Each turn gives the ratio of the whole work; the
median of the turns is the one to quote.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from wavefront import VOCAB, build, matrix_rate, suffix_flops

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head
from forgetguard.capabilities.batches import make_batches
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.encoding import Encoded, EncodedPair
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.variants import exchange_answers
from forgetguard.discovery.activation_patching import activation_patching
from forgetguard.discovery.attribution_patching import attribution_patching
from forgetguard.discovery.binary_masking import negative_logprob
from forgetguard.discovery.integrated_gradients import integrated_gradients
from forgetguard.discovery.mask_training import Aim, Masks, Schedule, learn, prepare
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.gradients import gradients


def random_pairs(n: int, tokens: int, shared: int) -> EncodedCapability:
    """`n` pairs of `tokens` random tokens, the first `shared` of which clean and counterfactual
    have in common (at most; chance may add some)."""
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, VOCAB, (length,), generator=generator).tolist())

    pairs = []
    for _ in range(n):
        prefix, rest = draw(shared), tokens - shared
        text = PromptPair("", "", "", "")
        pairs.append(EncodedPair(text, prefix + draw(rest), prefix + draw(rest), draw(1), draw(1)))
    found = tuple(pairs)
    return EncodedCapability(Capability("random"), Encoded(found, {}), make_batches(found))


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def clean_runs(anatomy: Anatomy, seen: EncodedCapability, part: Sequence[Head]) -> None:
    """What exact patching does before it patches: clean and counterfactual prompts, once each."""
    for batch in seen.batches:
        clean_pass(anatomy, batch.clean, batch.positions, part)
        capture(anatomy, batch.counterfactual, batch.positions, part)


def screening(pairs: int, tokens: int, shared: int, parts: int, most: int) -> None:
    """Exact patching of all heads against the two gradient-based approximations."""
    anatomy, seen = build(0), random_pairs(pairs, tokens, shared)
    heads = anatomy.heads
    print(f"{len(heads)} heads in {parts} parts, {pairs} pairs, {tokens} tokens, ", end="")
    print(f"{shared} shared, {torch.get_num_threads()} threads; seconds of the whole work")
    print(
        "turn     exact  of the floor  attribution  integrated  exact/attribution  exact/integrated"
    )
    ratios: list[tuple[float, float, float]] = []
    for turn in range(min(most, parts)):
        part = heads[turn::parts]
        whole = len(heads) / len(part)
        before = matrix_rate(anatomy)
        once = timed(lambda part=part: clean_runs(anatomy, seen, part))
        patching = timed(lambda part=part: activation_patching(anatomy, seen, part)) - once
        rate = (before + matrix_rate(anatomy)) / 2
        exact = whole * patching + once
        # The floor counts all positions; those that a pair shares are not patched.
        floor = suffix_flops(heads, pairs, tokens - shared) / rate
        attribution = timed(lambda: attribution_patching(anatomy, seen, heads, verify=0, audit=0))
        integrated = timed(lambda: integrated_gradients(anatomy, seen, heads))
        ratios.append((exact / floor, exact / attribution, exact / integrated))
        _row(
            f"{turn:4d}", f"{exact:8.1f}", f"{attribution:11.2f}", f"{integrated:10.2f}", ratios[-1]
        )
    medians = [statistics.median(column) for column in zip(*ratios, strict=True)]
    _row("median", " " * 6, " " * 11, " " * 10, medians)


def _row(turn: str, exact: str, attribution: str, integrated: str, ratios: Sequence[float]) -> None:
    floor, first, second = ratios
    print(f"{turn}  {exact}  {floor:11.2f}x  {attribution}  {integrated}", end="")
    print(f"  {first:16.1f}x  {second:15.1f}x", flush=True)


def masking(tokens: int, most: int, steps: int = 4, rows: int = 8) -> None:
    """A step of binary masking against one plain forward and backward pass of as many prompts."""
    anatomy, seen = build(0), random_pairs(rows, tokens, 0)
    heads, batch = anatomy.heads, seen.batches[0]
    schedule = Schedule(steps, rows, 0.1, 0.01, "all", 0)
    start = torch.zeros(len(heads), dtype=torch.float64)
    began = time.perf_counter()
    pools = prepare(anatomy, heads, [Aim(exchange_answers(seen), negative_logprob)], "all")
    print(f"\n{rows} prompts of {tokens} tokens; sources cached once in ", end="")
    print(f"{time.perf_counter() - began:.2f} s\nturn  masking step  forward and backward  ratio")

    def learned() -> object:
        masks = Masks(start, lambda logits, _: torch.sigmoid(logits), lambda p, _: p, torch.sigmoid)
        return learn(anatomy, heads, pools, masks, schedule, key="")

    def plain() -> None:
        for _ in range(steps):
            gradients(
                anatomy, batch.clean, batch.positions, heads, lambda logits: logits.sum((1, 2))
            )

    ratios = []
    for turn in range(most):
        step, once = timed(learned) / steps, timed(plain) / steps
        ratios.append(step / once)
        print(f"{turn:4d}  {step:12.2f}  {once:20.2f}  {ratios[-1]:.2f}x", flush=True)
    print(f"median {statistics.median(ratios):37.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=64, help="prompt pairs")
    parser.add_argument("--tokens", type=int, default=32, help="tokens a prompt")
    parser.add_argument("--shared", type=int, default=0, help="tokens that a pair has in common")
    parser.add_argument("--parts", type=int, default=12, help="parts that the heads are cut into")
    parser.add_argument("--most", type=int, default=12, help="turns, one part each")
    options = parser.parse_args()
    screening(options.pairs, options.tokens, options.shared, options.parts, options.most)
    masking(options.tokens, options.most)


if __name__ == "__main__":
    main()
