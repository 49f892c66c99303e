"""Where a lost readout came from: the loss from base to tuned, shared among the parts of the
checkpoint, by putting tuned's part into the base and the base's part into tuned.

With v(S) the mean readout of the model whose parts S are tuned's and whose others are the base's, L
= v(none) - v(all) is the loss. Of each part g

    alone_g = v(none) - v({g})       what it costs in the base
    back_g  = v(all but g) - v(all)  what tuned regains without it
    phi_g   = (alone_g + back_g) / 2

phi is the part's Shapley value where parts act by themselves or in pairs (a pair's interaction is
split evenly). What more parts together do is left over, L - sum phi: it is stated (`interaction`),
and shared in proportion to |phi|, so that the shares are of the whole loss, sum to 1, and are 0
where a part does nothing. Accuracy likewise.

A part that carries a tenth of the loss is refined: its layers' matrices, their heads, an
embedding's rows. Which are read exactly is chosen to first order (gradient of the mean readout times
tuned - base, averaged at the two ends, which is exact for quadratics). Of a refined part's share
the factor is its group's, and what is not refined is the group's rest.

Control: the base with the part moved as far, every entry up or down by a coin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.readouts import READOUTS, score
from forgetguard.errors import MeasurementError
from forgetguard.measures.behaviour import behaviour
from forgetguard.measures.origin_parts import EMBEDDINGS, Group, Part, groups, rows_of
from forgetguard.measures.origin_weights import Entries, Exchange, Side, Sums, exchange
from forgetguard.measures.parameter_drift import WeightPair, weight_pairs
from forgetguard.patching.budget import memory_errors
from forgetguard.patching.forward import forward

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import ModelPair

PASSES = 40
GROUPS = 12  # the first parts; with both directions 24 passes
FEWEST_PASSES = 16  # both ends, and 7 parts in both directions
CARRIES = 0.1  # of the loss, from which on a part is refined
WORTH = 0.05  # of the loss, to first order, from which on a part inside is read
CONTROLS = 3  # parts that are also moved at random
TOKENS = 8  # rows of an embedding that are named, and exchanged together
_CHUNK = 1024  # tokens whose graph is held at once

Progress = Callable[[int, int], None]  # passes done, of at most


@dataclass(frozen=True, slots=True)
class Amount:
    """Of the readout (mean over the pairs, in its own unit), and of the share of pairs answered
    right."""

    readout: float
    accuracy: float

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.readout - other.readout, self.accuracy - other.accuracy)


@dataclass(frozen=True, slots=True)
class Share:
    """A part's. `alone`, `back`: what it costs in the base, and what tuned regains without it;
    `share` of the whole loss; `random`: what the base loses where the part is moved as far at
    random, None where that was not read. `inside`: the part that it refines."""

    part: Part
    alone: Amount
    back: Amount
    share: Amount
    random: Amount | None = None
    inside: Part | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A row of an embedding: its token's id and text, and which share of the loss it carries, to
    first order."""

    id: int
    share: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the loss of one capability came from.

    Attributes:
        pairs: how many it rests on.
        base, tuned: the two ends; their difference is the loss.
        lost: whether the readout's loss can be told from nothing (more than two standard errors);
            without that there are no shares, and all are 0.
        parts: by share, the largest first; they sum to 1.
        refined: parts inside some of those.
        tokens: the rows that carry most of an embedding's share.
        interaction: what more than two parts do only together, as a share of the loss; it is in the
            parts' shares.
        passes: forward passes of the prompts.
    """

    pairs: int
    base: Amount
    tuned: Amount
    lost: bool
    parts: tuple[Share, ...]
    refined: tuple[Share, ...]
    tokens: tuple[Token, ...]
    interaction: Amount
    passes: int


def origin_between(
    pair: ModelPair,
    capability: EncodedCapability,
    *,
    vocabulary: int | None = None,
    passes: int = PASSES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Origin:
    """`origin`, of a pair's base and tuned checkpoint; only the base is loaded.

    Raises:
        CheckpointError: as `weight_pairs` and `origin`; so MeasurementError.
    """
    pairs = weight_pairs(pair.base.spec, pair.tuned.spec, pair.options, untied=True)
    with memory_errors("measuring the origin of a loss"), pair.base.open() as model:
        found = origin(
            locate(model),
            capability,
            pairs,
            vocabulary=vocabulary,
            passes=passes,
            seed=seed,
            progress=progress,
        )
    decode = pair.base.tokenizer.decode
    tokens = tuple(replace(one, text=str(decode([one.id]))) for one in found.tokens)
    return replace(found, tokens=tokens)


def origin(
    anatomy: Anatomy,
    capability: EncodedCapability,
    pairs: Sequence[WeightPair],
    *,
    vocabulary: int | None = None,
    passes: int = PASSES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Origin:
    """Share the loss among the parts of the checkpoint.

    Args:
        anatomy: of the open base; when this returns, or raises, its weights are what they were.
        pairs: of `weight_pairs(..., untied=True)`.
        passes: forward passes of all prompts, at most; two of them with a backward pass.
        seed: of the controls.

    Raises:
        MeasurementError: too few passes, or logits or weights that are not finite.
        CheckpointError: as `origin_weights.exchange`.
    """
    if passes < FEWEST_PASSES:
        raise MeasurementError(f"passes={passes}: the origin of a loss needs {FEWEST_PASSES}")
    with exchange(anatomy.model, pairs) as weights:
        run = _Run(anatomy, capability, weights, vocabulary, passes, seed, progress)
        return run.origin()


def shares(loss: float, alone: Iterable[float], back: Iterable[float]) -> tuple[list[float], float]:
    """(each part's share of the loss, what is left to more than two parts as a share of it); all 0
    where nothing was lost, or no part does anything by itself."""
    phi = [(one + other) / 2 for one, other in zip(alone, back, strict=True)]
    size = sum(map(abs, phi))
    if loss <= 0:
        return [0.0] * len(phi), 0.0
    left = loss - sum(phi)
    return [(one + left * abs(one) / size) / loss if size else 0.0 for one in phi], left / loss


class _Run:
    """One attribution: what it reads, pass by pass."""

    def __init__(
        self,
        anatomy: Anatomy,
        capability: EncodedCapability,
        weights: Exchange,
        vocabulary: int | None,
        passes: int,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self._anatomy, self._capability, self._weights = anatomy, capability, weights
        self._vocabulary, self._seed, self._progress = vocabulary, seed, progress
        self._passes, self._used = passes, 0

    def origin(self) -> Origin:
        weights = self._weights
        most = min(GROUPS, (self._passes - 2) // 2)
        parts = groups(self._anatomy, weights.parameters, most)
        base, before = self._read()
        alone = [base - self._with(one, Side.TUNED, Side.BASE) for one in parts]
        self._all(Side.TUNED)
        tuned, after = self._read() if parts else (base, before)
        back = [self._with(one, Side.BASE, Side.TUNED) - tuned for one in parts]
        found, interaction = _shared(parts, alone, back, base - tuned)
        drop = before - after
        lost = bool(drop.mean() > 2 * drop.std() / np.sqrt(len(drop)))
        if not lost:
            found, interaction = [replace(one, share=Amount(0, 0)) for one in found], Amount(0, 0)
        carry = {
            one.part: group
            for group, one in zip(parts, found, strict=True)
            if abs(one.share.readout) >= CARRIES
        }
        refined, tokens, randomly = self._inside(carry, found, base, tuned)
        found = [replace(one, random=randomly.get(one.part)) for one in found]
        found.sort(key=lambda one: -one.share.readout)
        return Origin(
            len(drop), base, tuned, lost, tuple(found), refined, tokens, interaction, self._used
        )

    def _inside(
        self, carry: Mapping[Part, Group], found: Sequence[Share], base: Amount, tuned: Amount
    ) -> tuple[tuple[Share, ...], tuple[Token, ...], dict[Part, Amount]]:
        """What lies inside the parts that carry the loss; the model is tuned's when it begins."""
        by_part = {one.part: one for one in found}
        ranked = sorted(carry, key=lambda part: -abs(by_part[part].share.readout))
        loss = base.readout - tuned.readout
        chosen: list[tuple[Part, Group]] = []
        tokens: tuple[Token, ...] = ()
        room = self._passes - self._used - 2  # without the two gradients
        names = {
            name: None
            for one in carry.values()
            if one.inside or one.part.kind in EMBEDDINGS
            for name in one.slices
        }
        controls = min(CONTROLS, len(ranked), max(0, room))
        inside = (room - controls) // 2 if names else 0
        if inside > 0:
            ends = [self._gradient(names)]
            self._all(Side.BASE)
            ends.append(self._gradient(names))
            slopes = {name: _mean(ends[0][name], ends[1][name]) for name in names}
            tables = [part for part in ranked if part.kind in EMBEDDINGS]
            if tables:
                tokens = _tokens(carry[tables[0]], slopes, loss)
                if tokens:
                    rows = rows_of(carry[tables[0]], [one.id for one in tokens])
                    chosen.append((tables[0], rows))
            left = {part: carry[part] for part in ranked if part.kind not in EMBEDDINGS}
            chosen += _chosen(left, by_part, slopes, inside - len(chosen))
        self._all(Side.BASE)
        alone = [base - self._with(one, Side.TUNED, Side.BASE) for _, one in chosen]
        randomly = {
            part: base - self._with(carry[part], Side.RANDOM, Side.BASE)
            for part in ranked[:controls]
        }
        self._all(Side.TUNED)
        back = [self._with(one, Side.BASE, Side.TUNED) - tuned for _, one in chosen]
        refined = [
            Share(one.part, cost, gain, _within(by_part[part], cost, gain, base - tuned), None, part)
            for (part, one), cost, gain in zip(chosen, alone, back, strict=True)
        ]
        return tuple(refined), tokens, randomly

    def _all(self, side: Side) -> None:
        if side is Side.BASE:
            self._weights.restore()
        else:
            self._weights.put(dict.fromkeys(self._weights.parameters, Entries()), side)

    def _with(self, group: Group, side: Side, then: Side) -> Amount:
        """The behaviour with one part of `side`, which is put back to `then`."""
        self._weights.put(group.slices, side, self._seed)
        found, _ = self._read()
        self._weights.put(group.slices, then)
        return found

    def _read(self) -> tuple[Amount, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """What the model as it is does on the prompts, and its readout pair by pair."""
        found = behaviour(self._anatomy, self._capability, vocabulary=self._vocabulary)
        self._count()
        return Amount(float(found.readout.mean()), float(found.correct.mean())), found.readout

    def _count(self) -> None:
        self._used += 1
        if self._progress is not None:
            self._progress(self._used, self._passes)

    def _gradient(self, names: Iterable[str]) -> dict[str, Sums]:
        """By tensor, how the mean readout changes to first order from base to tuned, by row and by
        column, with the gradient of the model as it is. No more than one tensor's is held."""
        parameters = {name: self._weights.parameters[name] for name in names}
        found: dict[str, Sums] = {}

        def take(name: str) -> Callable[[nn.Parameter], None]:
            def hook(_: nn.Parameter) -> None:
                more = self._weights.sums(name)
                found[name] = _plus(found[name], more) if name in found else more

            return hook

        hooks = []
        try:
            for name, one in parameters.items():
                one.requires_grad_(True)
                hooks.append(one.register_post_accumulate_grad_hook(take(name)))
            self._backward()
        finally:
            for hook in hooks:
                hook.remove()
            for one in parameters.values():
                one.requires_grad_(False)
                one.grad = None
        self._count()
        return found

    def _backward(self) -> None:
        readout = READOUTS[self._capability.capability.readout]
        count = self._capability.n_pairs
        for batch in self._capability.batches:
            rows = max(1, _CHUNK // batch.clean.shape[1])
            for chunk in torch.arange(len(batch.pairs)).split(rows):
                with torch.enable_grad():
                    logits = forward(self._anatomy, batch.clean[chunk], batch.positions)
                    read = score(readout, logits[..., : self._vocabulary].float(), batch, chunk)
                    (-read.sum() / count).backward()  # type: ignore[no-untyped-call]


def _shared(
    parts: Sequence[Group], alone: Sequence[Amount], back: Sequence[Amount], loss: Amount
) -> tuple[list[Share], Amount]:
    readout, left = shares(
        loss.readout, [one.readout for one in alone], [one.readout for one in back]
    )
    accuracy, lost = shares(
        loss.accuracy, [one.accuracy for one in alone], [one.accuracy for one in back]
    )
    found = [
        Share(group.part, cost, gain, Amount(*each))
        for group, cost, gain, each in zip(
            parts, alone, back, zip(readout, accuracy, strict=True), strict=True
        )
    ]
    return found, Amount(left, lost)


def _within(group: Share, alone: Amount, back: Amount, loss: Amount) -> Amount:
    """A refined part's share, by the factor of its group."""

    def one(name: str) -> float:
        own, whole = (
            getattr(cost, name) + getattr(gain, name)
            for cost, gain in ((alone, back), (group.alone, group.back))
        )
        if whole:
            return float(own / whole * getattr(group.share, name))
        return float(own / 2 / getattr(loss, name)) if getattr(loss, name) > 0 else 0.0

    return Amount(one("readout"), one("accuracy"))


def _chosen(
    carry: Mapping[Part, Group], found: Mapping[Part, Share], slopes: Mapping[str, Sums], most: int
) -> list[tuple[Part, Group]]:
    """What inside these parts to read, each with the part that it is in: what carries most of the
    loss to first order, a head after its projection."""
    waiting: list[tuple[float, Part, Group]] = []

    def add(part: Part, group: Group, share: float) -> None:
        """What a group consists of, its share divided as the first order has it."""
        sizes = [abs(_first_order(one, slopes)) for one in group.inside]
        whole = sum(sizes)
        for one, size in zip(group.inside, sizes, strict=True):
            worth = share * size / whole if whole else 0.0
            if worth >= WORTH:
                waiting.append((worth, part, one))

    for part, group in carry.items():
        add(part, group, abs(found[part].share.readout))
    chosen: list[tuple[Part, Group]] = []
    while waiting and len(chosen) < most:
        best = max(waiting, key=lambda one: one[0])
        waiting.remove(best)
        chosen.append(best[1:])
        add(best[1], best[2], best[0])
    return chosen


def _first_order(group: Group, slopes: Mapping[str, Sums]) -> float:
    total = 0.0
    for name, entries in group.slices.items():
        rows, columns = slopes[name]
        if entries.rows is not None:
            total += float(rows[entries.rows].sum())
        elif entries.columns is not None and columns is not None:
            total += float(columns[entries.columns].sum())
        else:
            total += float(rows.sum())
    return total


def _tokens(group: Group, slopes: Mapping[str, Sums], loss: float) -> tuple[Token, ...]:
    """The rows that lose most, to first order."""
    rows, _ = slopes[next(iter(group.slices))]
    order = torch.argsort(rows, descending=True, stable=True)[:TOKENS]
    return tuple(Token(int(one), float(rows[one]) / loss) for one in order if rows[one] > 0)


def _plus(one: Sums, other: Sums) -> Sums:
    columns = None if one[1] is None or other[1] is None else one[1] + other[1]
    return one[0] + other[0], columns


def _mean(one: Sums, other: Sums) -> Sums:
    rows, columns = _plus(one, other)
    return rows / 2, None if columns is None else columns / 2
