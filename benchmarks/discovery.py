"""Cost of circuit discovery, as ratios in one run.

    python benchmarks/discovery.py                          # 64 pairs, 32 tokens, all 144 heads
    python benchmarks/discovery.py --pairs 8 --most 2       # a quick look
    python benchmarks/discovery.py --shared 16              # pairs agree in their first 16 tokens

A 12-layer, 12-head, d=768 decoder (vocabulary 32,000, random weights), pairs of random prompts,
logit difference at the last position. Part one, screening:

    exact          activation_patching of all heads: one wavefront
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
import transformers

from forgetguard.anatomy.locate import Anatomy, locate
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
from forgetguard.discovery.mask_training import Aim, Schedule, learn, prepare
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.gradients import gradients

LAYERS, WIDTH, HEADS, INNER, VOCAB = 12, 768, 12, 2048, 32_000


def build(seed: int) -> Anatomy:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
    )
    return locate(transformers.LlamaForCausalLM(config).eval().requires_grad_(False))


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
    print("turn     exact  attribution  integrated  exact/attribution  exact/integrated")
    ratios: list[tuple[float, float]] = []
    for turn in range(min(most, parts)):
        part = heads[turn::parts]
        whole = len(heads) / len(part)
        once = timed(lambda part=part: clean_runs(anatomy, seen, part))
        patching = timed(lambda part=part: activation_patching(anatomy, seen, part)) - once
        exact = whole * patching + once
        attribution = timed(lambda: attribution_patching(anatomy, seen, heads, verify=0, audit=0))
        integrated = timed(lambda: integrated_gradients(anatomy, seen, heads))
        ratios.append((exact / attribution, exact / integrated))
        print(f"{turn:4d}  {exact:8.1f}  {attribution:11.2f}  {integrated:10.2f}", end="")
        print(f"  {ratios[-1][0]:16.1f}x  {ratios[-1][1]:15.1f}x", flush=True)
    first, second = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"median {first:51.1f}x  {second:15.1f}x")


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
        mask = lambda logits, _: torch.sigmoid(logits)  # noqa: E731
        return learn(anatomy, heads, pools, start, mask, lambda p, _: p, schedule, key="")

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
