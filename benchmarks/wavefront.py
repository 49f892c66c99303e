"""Speed of the wavefront against its alternatives and its arithmetic floor, as ratios in one run.

    python benchmarks/wavefront.py                # all 144 heads, in six parts
    python benchmarks/wavefront.py --most 2       # the first two parts

A 12-layer, 12-head, d=768 decoder (vocabulary 32,000, random weights), 16 prompts of 32 tokens,
contributions from another model. Alternatives, on the same work with the same results:

    per head            one batched forward for each head, all prompts in it, all logits: what
                        TransformerLens' get_act_patch_attn_head_out_all_pos does
    last logits         the same with the logits of the last position only
    per head, prompt    one forward for each head and prompt, all logits
    floor               the arithmetic of the recomputed suffixes alone, at the rate (measured
                        before and after) of the model's own matrix products and nothing else

Machines are noisy: the variants take turns on a part of the heads at a time, and the ratios of the
sums are the ones to quote.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
import transformers
from torch import Tensor

from forgetguard.anatomy.contributions import output_slices
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront

LAYERS, WIDTH, HEADS, INNER, VOCAB = 12, 768, 12, 2048, 32_000
ROWS, TOKENS = 16, 32


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


def last_position(logits: Tensor, rows: Tensor) -> Tensor:
    return logits[:, -1, :8]


def patch_one(anatomy: Anatomy, ids: Tensor, run: Run, rows: slice, keep: int) -> Tensor:
    """One ordinary forward with one head patched, by a hook on its output projection; `keep`: the
    number of last positions that get logits, 0 for all."""
    (head,) = run.members
    assert isinstance(head, Head)
    site, weights = anatomy.site(head.layer), run.source.weights
    assert weights is not None
    own = output_slices(anatomy, [head])[head]

    def patch(_: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        z = args[0][..., site.slice(head)]
        return output + run.source.z[head][rows] @ weights[head] - z @ own

    handle = site.output_projection.register_forward_hook(patch)
    logits = anatomy.model(input_ids=ids[rows], use_cache=False, logits_to_keep=keep).logits
    handle.remove()
    return logits[:, -1, :8]


def suffix_flops(heads: Sequence[Head], rows: int, tokens: int) -> float:
    """Floating-point operations of the recomputed layers: projections, attention, MLP, logits."""
    per_token = 2 * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER) + 4 * tokens * WIDTH
    layers = sum(LAYERS - head.layer for head in heads)
    return rows * (layers * tokens * per_token + len(heads) * 2 * WIDTH * VOCAB)


def matrix_rate(anatomy: Anatomy) -> float:
    """Floating-point operations a second of the layers' matrix products alone: the model's own
    weights in their order, on 2,048 tokens, for three seconds."""
    x, inner = torch.randn(2048, WIDTH), torch.randn(2048, INNER)
    began, flops = time.perf_counter(), 0.0
    while time.perf_counter() - began < 3.0:
        for layer in anatomy.layers:
            for name, parameter in layer.named_parameters():
                if parameter.dim() == 2:
                    torch.nn.functional.linear(inner if "down" in name else x, parameter)
                    flops += 2.0 * 2048 * parameter.numel()
    return flops / (time.perf_counter() - began)


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    began = time.perf_counter()
    with torch.no_grad():
        result = work()
    return time.perf_counter() - began, result


def compare(parts: int, most: int, budget: int | None) -> None:
    """Every variant on one part of the heads, then on the next: drift of the machine meets all."""
    base, tuned = build(0), build(1)
    ids = torch.randint(0, VOCAB, (ROWS, TOKENS))
    source_z = capture(tuned, ids, [TOKENS - 1], tuned.heads).z
    source = Source(source_z, output_slices(tuned, tuned.heads))
    threads = torch.get_num_threads()
    print(f"{len(base.heads)} heads in {parts} parts, {ROWS} prompts, {TOKENS} tokens, ", end="")
    print(f"{threads} threads; seconds, and times the wavefront's")
    print("part  wavefront   per head  last logits  per head, prompt  of the floor")
    totals = [0.0] * 5
    for part in range(min(parts, most)):
        heads = base.heads[part::parts]
        runs = [Run((head,), source) for head in heads]
        seconds = _variants(base, ids, heads, runs, budget)
        totals = [a + b for a, b in zip(totals, seconds, strict=True)]
        _show(str(part), seconds)
    _show("all", totals)


def _variants(
    base: Anatomy, ids: Tensor, heads: Sequence[Head], runs: Sequence[Run], budget: int | None
) -> list[float]:
    """Seconds of: wavefront, per head, last logits, per head and prompt, floor."""

    def wave() -> Tensor:
        clean = clean_pass(base, ids, [TOKENS - 1], heads)
        return wavefront(clean, runs, last_position, budget=budget)

    def per_head(keep: int) -> Tensor:
        return torch.stack([patch_one(base, ids, run, slice(None), keep) for run in runs])

    def per_prompt() -> Tensor:
        few = runs[::4]  # a quarter of the heads, spread over the layers, for time's sake
        rows = [slice(i, i + 1) for i in range(ROWS)]
        return torch.cat([patch_one(base, ids, run, row, 0) for run in few for row in rows])

    before = matrix_rate(base)
    wave_seconds, values = timed(wave)
    between = matrix_rate(base)
    whole, expected = timed(partial(per_head, 0))
    last, _ = timed(partial(per_head, 1))
    single, _ = timed(per_prompt)
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    floor = suffix_flops(heads, ROWS, TOKENS) / ((before + between) / 2)
    return [wave_seconds, whole, last, single * len(runs) / len(runs[::4]), floor]


def _show(name: str, seconds: Sequence[float]) -> None:
    wave, whole, last, single, floor = seconds
    ratios = (whole / wave, last / wave, single / wave, wave / floor)
    print(f"{name:>4s}  {wave:9.2f}" + "".join(f"  {ratio:9.2f}x" for ratio in ratios), flush=True)


def prefix_gain(parts: int) -> None:
    """Another prompt of the same model as the source: the gain over the shared prefix's length."""
    base = build(0)
    ids = torch.randint(0, VOCAB, (ROWS, TOKENS))
    heads = base.heads[::parts]
    print("shared prefix of", TOKENS, "positions: speed against recomputing every position")
    for start in (0, 8, 16, 24, 28):
        other = ids.clone()
        other[:, start:] = torch.randint(0, VOCAB, (ROWS, TOKENS - start))
        z = capture(base, other, [TOKENS - 1], heads).z
        clean = clean_pass(base, ids, [TOKENS - 1], heads)
        runs = {at: [Run((h,), Source(z, start=at)) for h in heads] for at in (0, start)}
        whole, expected = timed(partial(wavefront, clean, runs[0], last_position))
        short, values = timed(partial(wavefront, clean, runs[start], last_position))
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
        print(f"  {start:2d} positions shared: {whole / short:5.2f}x")


def budgets(parts: int) -> None:
    """Seconds of one wavefront over its row budget."""
    base, tuned = build(0), build(1)
    ids = torch.randint(0, VOCAB, (ROWS, TOKENS))
    heads = base.heads[::parts]
    source = Source(capture(tuned, ids, [TOKENS - 1], heads).z, output_slices(tuned, heads))
    runs = [Run((head,), source) for head in heads]
    clean = clean_pass(base, ids, [TOKENS - 1], heads)
    for tokens in (512, 1024, 2048, 4096, 8192, 32768):
        best = min(
            timed(partial(wavefront, clean, runs, last_position, budget=tokens))[0]
            for _ in range(2)
        )
        print(f"budget {tokens:6d} tokens: {best:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", type=int, default=6, help="parts that the heads are cut into")
    parser.add_argument("--most", type=int, default=6, help="parts that are run")
    parser.add_argument("--budget", type=int, default=None, help="tokens held at once")
    parser.add_argument("--prefix", action="store_true", help="only the gain over prefix length")
    parser.add_argument("--budgets", action="store_true", help="only the cost over row budgets")
    options = parser.parse_args()
    if options.prefix:
        prefix_gain(options.parts)
    elif options.budgets:
        budgets(options.parts)
    else:
        compare(options.parts, options.most, options.budget)


if __name__ == "__main__":
    main()
