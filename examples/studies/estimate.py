"""What a run takes on one GPU, reckoned from shapes: memory in bytes, time in seconds.

Arithmetic, not a measurement: it tells whether a preset can fit and in what order of magnitude of
hours, before anything is rented.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from examples.studies.reference.plan import Run
from forgetguard.recipes.training.settings import REINFORCED, TrainingSettings

GB = 10**9


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder-only model: parameters, layers, widths, and the heads that the cache holds."""

    parameters: int
    layers: int
    width: int
    inner: int
    kv_heads: int
    head_dim: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU: bytes of memory, bytes a second from it, and what it sustains in bfloat16."""

    memory: int
    bandwidth: float
    flops: float


# Qwen2.5-3B's config.json: tied embeddings, 3.09e9 parameters.
QWEN_3B = Shape(3_090_000_000, 36, 2048, 11008, 2, 128, 151936)
# An A100 with 80 GB: 2.0 TB/s; 312 TFLOP/s in bfloat16, of which training sustains about 0.4 and
# reading weights for decoding about 0.6 of the bandwidth (both assumed).
A100 = Device(80 * GB, 0.6 * 2.0e12, 0.4 * 312e12)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: what the trained weights need (themselves, gradients, Adam's two moments, float32),
    the frozen base in bfloat16, activations, logits, and the cache of sampled completions."""

    trained: int
    frozen: int
    activations: int
    logits: int
    cache: int

    @property
    def most(self) -> int:
        """At the worst moment; sampling and the backward pass are not at the same time."""
        return self.trained + self.frozen + max(self.activations + self.logits, self.cache)


def memory(shape: Shape, settings: TrainingSettings) -> Memory:
    """Of a full-parameter run with gradient checkpointing on one device.

    trained      16 bytes x parameters (4 weight, 4 gradient, 8 Adam)
    frozen       2 bytes x parameters, where KL to the base is taken in training (sft-kl, RL)
    activations  rows x tokens x (layers x width + 8 x (width + inner)) x 2 bytes: each layer's
                 input kept, one layer recomputed
    logits       3 copies x rows x completion tokens x vocabulary x 4 bytes (they, their
                 softmax, their gradient)
    cache        2 x layers x kv heads x head_dim x 2 bytes x all rows x tokens
    """
    samples = settings.recipe in REINFORCED
    at_once = settings.micro_batch or settings.rows
    tokens = settings.max_length
    answered = settings.completion_length or 0 if samples else tokens
    kept = shape.layers * shape.width + 8 * (shape.width + shape.inner)
    per_token = 2 * shape.layers * shape.kv_heads * shape.head_dim * 2
    return Memory(
        trained=16 * shape.parameters,
        frozen=2 * shape.parameters if samples or settings.recipe == "sft-kl" else 0,
        activations=at_once * tokens * kept * 2,
        logits=3 * at_once * answered * shape.vocabulary * 4,
        cache=per_token * settings.rows * tokens if samples else 0,
    )


def seconds(shape: Shape, device: Device, settings: TrainingSettings, tokens: int) -> float:
    """Of a whole run, rows being `tokens` long on average.

    An update costs 8 FLOP x parameters x tokens with checkpointing (2 forward, 2 recomputed, 4
    backward). Sampling reads all weights (2 bytes each) once for each token of a completion,
    whatever the batch, and happens once in `iterations` updates; scoring the completions under
    the model and the base adds 4 FLOP x parameters x tokens.
    """
    update = 8 * shape.parameters * settings.rows * tokens / device.flops
    if settings.recipe not in REINFORCED:
        return settings.steps * update
    length = settings.completion_length or 0
    sampled = length * 2 * shape.parameters / device.bandwidth
    scored = 4 * shape.parameters * settings.rows * tokens / device.flops
    return settings.steps * (update + (sampled + scored) / settings.iterations)


def hours(runs: Iterable[Run], shape: Shape, device: Device, tokens: int) -> float:
    """Of training all of them, one after another; measuring comes on top."""
    return sum(seconds(shape, device, run.settings, tokens) for run in runs) / 3600
