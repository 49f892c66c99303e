"""The loop that masks are learned in: minibatches, one forward and backward pass each, Adam, and
taking up an interrupted run again.

A run is a function of its settings and its seed alone: torch's global generator is neither read nor
moved, and what is drawn at a step depends on nothing but the seed and the step's number. Parameters
and Adam's moments are float64 on the CPU, whatever the model's dtype and device.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby, islice

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.batches import Batch, Logits, Targets
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.discovery.ranking import Progress, Ranking
from forgetguard.errors import SpecificationError
from forgetguard.measures.interventions import FloatArray, Saved
from forgetguard.measures.saved import digest
from forgetguard.patching.budget import memory_errors
from forgetguard.patching.forward import check_finite, forward, frozen, full_float32
from forgetguard.patching.mixing import SourceCache, cache_sources, mixed

Loss = Callable[[Logits, Targets], Float[Tensor, "row"]]
Parameters = Float64[Tensor, "member"]
# What a step makes of the parameters: the mask, or the parameters kept within their bounds.
AtStep = Callable[[Parameters, int], Parameters]

POSITIONS = ("all", "last")
SAVE_EVERY = 50  # steps


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """What masked members' replacement is to achieve: `loss`, in nats or logits a pair, of the
    logits that predict each pair's `answer`, teacher-forced after the clean prompt.

    complement: the others are replaced, by 1 - m, and the mask's members are left as they are.
    """

    pairs: EncodedCapability
    loss: Loss
    complement: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and on what to learn.

    batch: pairs in a minibatch, at most. sparsity: the price of one member, in the loss's unit.
    positions: mix at `all` positions, or at the prompt's `last` token alone.

    Raises:
        SpecificationError: this cannot be run.
    """

    steps: int
    batch: int
    learning_rate: float
    sparsity: float
    positions: str
    seed: int

    def __post_init__(self) -> None:
        if self.positions not in POSITIONS:
            raise SpecificationError(
                f"unknown positions {self.positions!r}; there are {', '.join(POSITIONS)}"
            )
        for name in ("steps", "batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise SpecificationError(
                    f"learning a mask: {name} is {getattr(self, name)}; it must be above 0"
                )
        if not self.sparsity >= 0:
            raise SpecificationError(
                f"learning a mask: sparsity is {self.sparsity}; it must not be below 0"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """Final parameters, and each member's mask averaged over the steps: how early and how firmly it
    was decided, which orders members whose parameters ended at the same bound."""

    parameters: Parameters
    mean_mask: Parameters


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """How parameters, one a member, make masks: where they begin, the mask at a step, their bounds,
    and the mask that they stand for in the end."""

    initial: Parameters
    mask: AtStep
    constrain: AtStep
    final: Callable[[Parameters], Parameters]


@dataclass(frozen=True, slots=True, eq=False)
class Bucket:
    """Pairs of one length, with what their members are mixed with.

    ids: clean prompts, [row, pos]. positions: where `answer`, [row, readout], is predicted.
    """

    ids: Int[Tensor, "row pos"]
    positions: tuple[int, ...]
    answer: Int[Tensor, "row readout"]
    sources: SourceCache


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The pairs of one aim, ready to draw from."""

    buckets: tuple[Bucket, ...]
    aim: Aim

    @property
    def n_pairs(self) -> int:
        return sum(len(bucket.ids) for bucket in self.buckets)


def prepare(
    anatomy: Anatomy, members: Sequence[Member], aims: Sequence[Aim], positions: str
) -> tuple[Pool, ...]:
    """Run the model once on every counterfactual prompt and keep what masks mix with, on the
    model's device: (pairs x positions x layers x n_heads * head_dim) numbers in its dtype, and as
    many times d_model where MLPs are among `members`.

    Raises:
        AnatomyError: one of `members` is not in the model.
        SpecificationError: there are no members.
        MeasurementError: memory does not suffice.
    """
    if not members:
        raise SpecificationError("learning a mask: there are no members to learn one for")
    with memory_errors("caching what masks mix with"), frozen(anatomy.model), full_float32():
        return tuple(
            Pool(
                tuple(
                    _bucket(anatomy, members, list(same), positions)
                    for _, same in groupby(sorted(aim.pairs.batches, key=_shape), key=_shape)
                ),
                aim,
            )
            for aim in aims
        )


def learn(
    anatomy: Anatomy,
    members: Sequence[Member],
    pools: Sequence[Pool],
    masks: Masks,
    schedule: Schedule,
    *,
    key: str,
    progress: Progress | None = None,
    saved: Saved | None = None,
) -> Learned:
    """Minimise, over the parameters p, mean loss of each pool + sparsity * sum of mask(p, step).

    A step draws one minibatch from each pool, without replacement until the pool is used up; its
    loss is weighted by its size, so that every pair counts alike. `constrain` is applied after it.

    Args:
        key: tells this run from all others that `saved` keeps; the state is stored under it every
            SAVE_EVERY steps and at the end, and a run that finds one goes on from it, to the same
            numbers.

    Raises:
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    parameters = masks.initial.clone().requires_grad_()
    adam = torch.optim.Adam([parameters], lr=schedule.learning_rate)
    total = torch.zeros_like(masks.initial)
    done = _restore(None if saved is None else saved.load(key), parameters, adam, total)
    drawn = [
        islice(_minibatches(pool, schedule.batch, f"{schedule.seed} {i}"), done, None)
        for i, pool in enumerate(pools)
    ]
    with memory_errors("learning a mask"), frozen(anatomy.model), full_float32():
        for step in range(done, schedule.steps):
            now = masks.mask(parameters, step)
            pull = torch.full_like(masks.initial, schedule.sparsity)
            for pool, minibatches in zip(pools, drawn, strict=True):
                pull += _gradient(anatomy, members, pool, next(minibatches), now.detach())
            (parameters.grad,) = torch.autograd.grad(now, parameters, pull)
            adam.step()
            parameters.data = masks.constrain(parameters.detach(), step)
            total += now.detach()
            done = step + 1
            if saved is not None and (done % SAVE_EVERY == 0 or done == schedule.steps):
                saved.save(key, _state(parameters, adam, total, done))
            if progress is not None:
                progress("learning a mask", done, schedule.steps)
    return Learned(parameters.detach(), total / schedule.steps)


def masked_ranking(
    anatomy: Anatomy,
    members: Sequence[Member],
    aims: Sequence[Aim],
    masks: Masks,
    schedule: Schedule,
    method: str,
    settings: Mapping[str, object],
    *,
    progress: Progress | None,
    saved: Saved | None,
) -> tuple[Ranking, list[float]]:
    """The members by what was learned, scored by the final mask, of which the set is m > 0.5; and
    each aim's mean loss with that set, all or nothing."""
    pools = prepare(anatomy, members, aims, schedule.positions)
    key = _run_key(method, settings, members, aims)
    learned = learn(
        anatomy, members, pools, masks, schedule, key=key, progress=progress, saved=saved
    )
    mask, mean_mask = masks.final(learned.parameters), learned.mean_mask
    order = sorted(
        range(len(members)),
        key=lambda i: (-float(learned.parameters[i]), -float(mean_mask[i]), members[i]),
    )
    at_mask = mean_losses(anatomy, members, pools, mask, schedule.batch)
    ranking = Ranking(
        {members[i]: float(mask[i]) for i in order},
        method,
        settings,
        selected=tuple(sorted(one for one, m in zip(members, mask, strict=True) if m > 0.5)),
        findings={
            "loss": sum(at_mask) + schedule.sparsity * float(mask.sum()),
            "size": int((mask > 0.5).sum()),
            "unsettled": int(((mask > 0.1) & (mask < 0.9)).sum()),
        },
    )
    return ranking, mean_losses(anatomy, members, pools, (mask > 0.5).double(), schedule.batch)


def start(n: int, seed: int, mean: float, spread: float) -> Parameters:
    """Normal parameters to begin with, of that mean and standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    return mean + spread * torch.randn(n, generator=generator, dtype=torch.float64)


def mean_losses(
    anatomy: Anatomy,
    members: Sequence[Member],
    pools: Sequence[Pool],
    mask: Float64[Tensor, "member"],
    batch: int,
) -> list[float]:
    """Each pool's mean loss over all its pairs at one mask, without the price of its members."""
    means = []
    with (
        memory_errors("reading a mask's loss"),
        frozen(anatomy.model),
        full_float32(),
        torch.no_grad(),
    ):
        for pool in pools:
            total = 0.0
            for bucket in pool.buckets:
                for rows in torch.arange(len(bucket.ids)).split(batch):
                    losses = _losses(anatomy, members, pool, bucket, rows, mask)
                    total += losses.double().sum().item()
            means.append(total / pool.n_pairs)
    return means


def _run_key(
    method: str, settings: Mapping[str, object], members: Sequence[Member], aims: Sequence[Aim]
) -> str:
    """A name for one run on one model: the method, its settings, its members and the tokens that
    it sees."""
    seen = [pair for aim in aims for pair in aim.pairs.encoded.pairs]
    tokens = [(pair.clean, pair.counterfactual, pair.answer) for pair in seen]
    return digest((method, sorted(settings.items()), list(map(str, members)), tokens))


def _shape(batch: Batch) -> tuple[int, int]:
    return batch.clean.shape[1], batch.answer.shape[1]


def _bucket(
    anatomy: Anatomy, members: Sequence[Member], batches: Sequence[Batch], positions: str
) -> Bucket:
    at = batches[0].positions
    # The first place where the answer is predicted is the prompt's last token.
    held = None if positions == "all" else at[:1]
    parts = [cache_sources(anatomy, one.counterfactual, members, positions=held) for one in batches]
    first = parts[0]
    return Bucket(
        torch.cat([batch.clean for batch in batches]),
        at,
        torch.cat([batch.answer for batch in batches]),
        SourceCache(
            {layer: torch.cat([part.heads[layer] for part in parts]) for layer in first.heads},
            {layer: torch.cat([part.mlps[layer] for part in parts]) for layer in first.mlps},
            first.positions,
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Minibatch:
    """`weight`: what makes every pair of the pool count alike, 1 on average."""

    bucket: Bucket
    rows: Int[Tensor, "row"]
    weight: float


def _minibatches(pool: Pool, batch: int, seed: str) -> Iterator[_Minibatch]:
    """Endless; each round is the pool in random order, cut into parts of nearly equal size."""
    n_parts = sum(math.ceil(len(bucket.ids) / batch) for bucket in pool.buckets)
    for number in count():
        rng = random.Random(f"minibatches {seed} {number}")
        parts: list[_Minibatch] = []
        for bucket in pool.buckets:
            rows = list(range(len(bucket.ids)))
            rng.shuffle(rows)
            step = math.ceil(len(rows) / batch)
            for part in (rows[first::step] for first in range(step)):
                weight = len(part) * n_parts / pool.n_pairs
                parts.append(_Minibatch(bucket, torch.tensor(part), weight))
        rng.shuffle(parts)
        yield from parts


def _gradient(
    anatomy: Anatomy, members: Sequence[Member], pool: Pool, drawn: _Minibatch, mask: Parameters
) -> Parameters:
    """d (weighted mean loss of a minibatch) / d mask."""
    mask = mask.requires_grad_()
    losses = _losses(anatomy, members, pool, drawn.bucket, drawn.rows, mask)
    (gradient,) = torch.autograd.grad(drawn.weight * losses.mean(), mask)
    return gradient


def _losses(
    anatomy: Anatomy,
    members: Sequence[Member],
    pool: Pool,
    bucket: Bucket,
    rows: Int[Tensor, "row"],
    mask: Parameters,
) -> Float[Tensor, "row"]:
    strength = 1 - mask if pool.aim.complement else mask
    with mixed(anatomy, members, strength, bucket.sources.rows(rows)):
        logits = forward(anatomy, bucket.ids[rows], bucket.positions).float()
    check_finite(logits, "a mixed run")
    return pool.aim.loss(logits, bucket.answer[rows].to(logits.device))


def _state(
    parameters: Parameters, adam: torch.optim.Adam, masks: Parameters, done: int
) -> FloatArray:
    """The parameters, Adam's two moments, the sum of the masks so far, and the steps done."""
    moments = adam.state[parameters]
    rows = [parameters.detach(), moments["exp_avg"], moments["exp_avg_sq"], masks]
    return np.append(torch.cat(rows).numpy(), np.float64(done))


def _restore(
    values: FloatArray | None, parameters: Parameters, adam: torch.optim.Adam, masks: Parameters
) -> int:
    """The inverse of `_state`, which it puts into these; how many steps are done."""
    if values is None:
        return 0
    parameters.data, first, second, masks[:] = torch.tensor(values[:-1]).view(4, -1).unbind()
    moments = {"step": torch.tensor(values[-1]), "exp_avg": first, "exp_avg_sq": second}
    adam.state[parameters] = moments
    return int(values[-1])
