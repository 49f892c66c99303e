"""Peak memory of a sequential run against that of one loaded model, in processes of their own.

    python benchmarks/memory.py

A random 12-layer decoder (about 0.5 GB in float32) and a copy with noise on it: the gate's whole
measurement (capture from tuned, free it, load the base, patch) against loading the base and running
one prompt batch. The claim: at most 1.2 x one model, plus what the row budget holds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH, LAYERS, HEADS, INNER, VOCAB = 1024, 12, 16, 2816, 4000


def build(directory: Path) -> tuple[Path, Path]:
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 4,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    words = {"<unk>": 0} | {f"w{i}": i for i in range(1, VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    paths = directory / "base", directory / "tuned"
    for path in paths:
        model.save_pretrained(path)
        fast.save_pretrained(path)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.01)
    return paths


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_model(base: Path, tuned: Path) -> None:
    import torch

    from forgetguard.anatomy.locate import locate
    from forgetguard.checkpoints.loading import load_model
    from forgetguard.checkpoints.spec import resolve

    model = load_model(resolve(str(base), "base"))
    locate(model)  # imports what a run imports
    with torch.no_grad():
        model(torch.zeros(8, 32, dtype=torch.long))


def sequential(base: Path, tuned: Path) -> None:
    import random

    import forgetguard as fg

    rng = random.Random(0)
    words = [f" w{i}" for i in range(1, VOCAB)]
    pairs = []
    for _ in range(16):
        prompt = rng.choices(words, k=32)
        other = [*prompt[:20], *rng.choices(words, k=12)]
        answer, distractor = rng.sample(words, 2)
        pairs.append(fg.PromptPair("".join(prompt), "".join(other), answer, distractor))
    pair = fg.load(base, tuned)
    circuit = [f"L{layer}H{head}" for layer in range(LAYERS) for head in (0, 7)]
    capability = fg.capability("random", pairs=pairs)
    # A random model can do nothing, and is refused at the end; what was run is what a gate runs.
    with contextlib.suppress(fg.ForgetguardError):
        fg.vulnerability(pair, capability, circuit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["one_model", "sequential"])
    parser.add_argument("paths", nargs="*", type=Path)
    options = parser.parse_args()
    if options.only:
        {"one_model": one_model, "sequential": sequential}[options.only](*options.paths)
        print(json.dumps(peak_megabytes()))
        return
    with tempfile.TemporaryDirectory() as directory:
        paths = build(Path(directory))
        size = (paths[0] / "model.safetensors").stat().st_size / 2**20
        peaks = {}
        for what in ("one_model", "sequential"):
            command = [sys.executable, __file__, "--only", what, *map(str, paths)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            peaks[what] = float(output.splitlines()[-1])
    print(
        f"weights {size:.0f} MB; peaks: " + ", ".join(f"{k} {v:.0f} MB" for k, v in peaks.items())
    )
    from forgetguard.patching.budget import CPU_TOKENS

    # What budget.default_budget counts for a token: the widest intermediates of a layer, float32.
    budget = CPU_TOKENS * (12 * WIDTH + 3 * INNER) * 4 / 2**20
    ratio = peaks["sequential"] / peaks["one_model"]
    beside = (peaks["sequential"] - budget) / peaks["one_model"]
    print(f"sequential run / one model: {ratio:.2f}x; {beside:.2f}x beside the row budget", end=" ")
    print(f"of {budget:.0f} MB")


if __name__ == "__main__":
    main()
