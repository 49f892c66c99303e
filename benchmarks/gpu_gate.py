"""The gate and the engine at the shape of Qwen2.5-3B, with random weights: parts of gpu.py.

The shape is Qwen2.5-3B's (36 layers, 16 heads, 2 key-value heads, head_dim 128, hidden 2048, MLP
11,008, 151,936 words, tied), in Qwen 3's architecture: a word-level tokenizer is ignored beside
`model_type: qwen2`. Answers are what the random base says anyway, so that it "can do" them.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model and of the work that is measured on it."""

    layers: int = 36
    heads: int = 16
    kv_heads: int = 2
    head_dim: int = 128
    hidden: int = 2048
    inner: int = 11_008
    vocabulary: int = 151_936
    circuit: int = 20
    pairs: int = 64
    tokens: int = 64

    @property
    def members(self) -> list[str]:
        """The heads of the circuit, spread over the layers."""
        places = range(self.circuit)
        return [f"L{i * self.layers // self.circuit}H{7 * i % self.heads}" for i in places]


FULL = Shape()
SMALL = Shape(4, 4, 2, 8, 32, 64, 500, 4, 16, 16)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def finished() -> None:
    """Wait until the device has done what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds of `work`."""
    finished()
    began = time.perf_counter()
    work()
    finished()
    return time.perf_counter() - began


def peak_gib() -> float | None:
    """The most device memory that tensors held so far, GiB; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else None


def warm_up() -> float:
    """Import what a run imports, and start the device; wall seconds."""

    def work() -> None:
        import transformer_lens  # noqa: F401

        import forgetguard.api.measure  # noqa: F401

        _ = transformers.AutoModelForCausalLM.from_pretrained
        torch.ones(8, 8, device=DEVICE).matmul(torch.ones(8, 8, device=DEVICE))

    return timed(work)


def make(shape: Shape, folder: Path) -> dict[str, Any]:
    """Write base, a copy with 1 % noise, the pairs, and a circuit file into `folder`."""
    config = transformers.Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.to(DEVICE).eval().requires_grad_(False)
    _write_pairs(shape, model, folder)
    tokenizer = _tokenizer(shape)
    for name in ("base", "tuned"):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.01 * parameter.std() * torch.randn_like(parameter))
    size = sum(file.stat().st_size for file in (folder / "base").glob("*.safetensors"))
    return {"shape": asdict(shape), "gib": size / 2**30}


def _tokenizer(shape: Shape) -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<unk>": 0} | {f"w{i}": i for i in range(1, shape.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def _write_pairs(shape: Shape, model: Any, folder: Path) -> None:
    """Prompts that agree in their first half; answer and distractor are the base's first and last
    choice after the clean prompt."""
    draw = random.Random(0)
    lines = []
    for _ in range(shape.pairs):
        clean = [draw.randrange(1, shape.vocabulary) for _ in range(shape.tokens)]
        half = shape.tokens // 2
        other = clean[:half] + [draw.randrange(1, shape.vocabulary) for _ in range(half)]
        logits = model(torch.tensor([clean], device=DEVICE), logits_to_keep=1).logits[0, -1, 1:]
        answer, distractor = 1 + int(logits.argmax()), 1 + int(logits.argmin())
        pair = {
            "clean": _text(clean),
            "counterfactual": _text(other),
            "answer": f" w{answer}",
            "distractor": f" w{distractor}",
        }
        lines.append(json.dumps(pair) + "\n")
    (folder / "gate").mkdir()
    (folder / "gate" / "pairs.jsonl").write_text("".join(lines))
    (folder / "gate" / "random.circuit.yaml").write_text(
        "forgetguard: 1\ncapability: random\npairs: {file: pairs.jsonl}\nreadout: logit_diff\n"
        f"circuit: [{', '.join(shape.members)}]\nlimits:\n  dcv.circuit: {{max: 0.5}}\n"
    )


def _text(ids: list[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


def gate(shape: Shape, folder: Path, dtype: str, placement: str) -> dict[str, Any]:
    """Both checkpoints measured through the Python API; resident, a second time without loading."""
    import forgetguard as fg

    imports = warm_up()
    rows = [json.loads(line) for line in (folder / "gate" / "pairs.jsonl").open()]
    pairs = [
        fg.PromptPair(row["clean"], row["counterfactual"], row["answer"], row["distractor"])
        for row in rows
    ]
    capability = fg.capability("random", pairs=pairs)
    began = time.perf_counter()
    pair = fg.load(
        folder / "base", folder / "tuned", dtype=dtype, device=DEVICE, placement=placement
    )
    naming = time.perf_counter() - began
    found: dict[str, Any] = {"imports_seconds": imports, "naming_seconds": naming}

    def measure() -> None:
        try:
            found["dcv"] = fg.vulnerability(pair, capability, shape.members).circuit.value
        except fg.ForgetguardError as error:  # a random model may not be measurable: say so
            found["refused"] = str(error)[:300]

    found["seconds"] = naming + timed(measure)
    if placement == "resident":
        found["again_seconds"] = timed(measure)
    pair.close()
    return found | {"peak_gib": peak_gib()}


def loading(folder: Path, dtype: str) -> dict[str, Any]:
    """Plain transformers: both checkpoints loaded onto the device, one after the other."""

    def both() -> None:
        for name in ("base", "tuned"):
            transformers.AutoModelForCausalLM.from_pretrained(
                folder / name, dtype=getattr(torch, dtype)
            ).to(DEVICE)

    warm_up()
    return {"seconds": timed(both), "peak_gib": peak_gib()}


def through_pytest(folder: Path, dtype: str) -> dict[str, Any]:
    """The gate as a CI job runs it, start-up and all."""
    results = folder / "verdicts.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--forgetguard"]
    command += [f"base={folder / 'base'}", f"tuned={folder / 'tuned'}", str(folder / "gate")]
    command += [f"--forgetguard-dtype={dtype}", f"--forgetguard-json={results}"]
    began = time.perf_counter()
    run = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - began
    print(run.stdout[-3000:], flush=True)
    return {"seconds": seconds, "status": run.returncode, "wrote_json": results.exists()}


def ratios(shape: Shape, folder: Path) -> dict[str, Any]:
    """One wavefront of the circuit's heads against a forward pass for each head, and for each head
    and prompt; contributions from the tuned model, bfloat16."""
    from forgetguard.anatomy.contributions import output_slices
    from forgetguard.anatomy.locate import locate
    from forgetguard.anatomy.members import Head, parse_member
    from forgetguard.patching.capture import capture
    from forgetguard.patching.clean import clean_pass
    from forgetguard.patching.sources import Run, Source
    from forgetguard.patching.wavefront import wavefront

    members = [parse_member(name) for name in shape.members]
    heads = [member for member in members if isinstance(member, Head)]
    torch.manual_seed(0)
    ids = torch.randint(1, shape.vocabulary, (shape.pairs, shape.tokens), device=DEVICE)
    last = [shape.tokens - 1]
    source: Source | None = None
    for name in ("tuned", "base"):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder / name, dtype=torch.bfloat16
        )
        anatomy = locate(model.to(DEVICE).eval().requires_grad_(False))
        if source is None:
            captured = capture(anatomy, ids, last, heads)
            source = Source(captured.z, output_slices(anatomy, heads))
    assert source is not None

    def one_by_one(head: Head, rows: slice) -> Tensor:
        site, own = anatomy.site(head.layer), output_slices(anatomy, [head])[head]

        def patch(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            z = args[0][..., site.slice(head)].float()
            foreign = source.z[head][rows].float() @ source.weights[head]
            return (output.float() + foreign - z @ own).to(output.dtype)

        handle = site.output_projection.register_forward_hook(patch)
        logits = anatomy.model(input_ids=ids[rows], use_cache=False, logits_to_keep=1).logits
        handle.remove()
        return logits[:, -1, :8].float()

    values: dict[str, Tensor] = {}

    def wave() -> None:
        runs = [Run((head,), source) for head in heads]
        clean = clean_pass(anatomy, ids, last, heads)
        values["wave"] = wavefront(clean, runs, lambda logits, _: logits[:, -1, :8].float())

    def per_head() -> None:
        values["head"] = torch.stack([one_by_one(head, slice(None)) for head in heads])

    def per_prompt() -> None:  # on a quarter of the heads, for time's sake
        for head in heads[::4]:
            for row in range(shape.pairs):
                one_by_one(head, slice(row, row + 1))

    with torch.no_grad():
        wave(), one_by_one(heads[0], slice(None)), one_by_one(heads[0], slice(0, 1))  # warm up
        waves = sorted(timed(wave) for _ in range(3))
        each = sorted(timed(per_head) for _ in range(3))
        alone = timed(per_prompt) * len(heads) / len(heads[::4])
    error = (values["wave"] - values["head"]).abs().max() / values["head"].abs().max()
    return {
        "wavefront_seconds": waves[1],
        "per_head": each[1] / waves[1],
        "per_prompt": alone / waves[1],
        "difference": error.item(),
        "peak_gib": peak_gib(),
    }


def training(folder: Path, steps: Mapping[str, int]) -> dict[str, Any]:
    """Seconds an update of the recipes `sft` and `rl` on the bundled tiny model."""
    from itertools import islice

    from forgetguard.recipes.data.substances import training_questions
    from forgetguard.recipes.training.rl import train_rl
    from forgetguard.recipes.training.settings import TrainingSettings
    from forgetguard.recipes.training.sft import train_sft

    questions = list(islice(training_questions(0), 512))
    common: dict[str, Any] = {"base": "tiny:base", "learning_rate": 1e-3, "max_length": 64}
    found: dict[str, Any] = {}
    for recipe, own, train in (
        ("sft", {"batch": 16}, train_sft),
        ("rl", {"prompts": 16, "group": 8, "completion_length": 2}, train_rl),
    ):
        for count in (1, steps[recipe]):  # the first run pays for imports and kernels
            output = folder / f"{recipe}-{count}"
            settings = TrainingSettings(
                recipe=recipe,
                output=str(output),
                steps=count,
                log_every=1,
                save_every=count,
                device=DEVICE,
                **common,
                **own,
            )
            train(settings, questions)
            card = json.loads((output / "final" / "run_card.json").read_text())
        found[recipe] = card["seconds"] / card["steps"]
    return {"seconds_a_step": found, "steps": dict(steps)}
