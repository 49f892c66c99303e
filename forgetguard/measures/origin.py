"""Where a lost readout came from: the loss from base to tuned, shared among the parts of the
checkpoint, by putting tuned's part into the base and the base's part into tuned.

With v(S) the mean readout of the model whose parts S are tuned's and whose others are the base's,
the loss is L = v(none) - v(all). Of each part g

    alone_g = v(none) - v({g})       what it costs in the base
    back_g  = v(all but g) - v(all)  what tuned regains without it
    phi_g   = (alone_g + back_g) / 2

phi is g's Shapley value where parts act by themselves or in pairs (a pair's interaction is split
evenly). What more parts do only together is left over, L - sum phi: it is stated (`interaction`),
and shared among the parts with phi above 0 in proportion to it, so that shares sum to 1.

A part that carries a tenth of the loss is refined: its layers' matrices, their heads, rows of an
embedding. Which are read exactly is chosen to first order (gradient of the mean readout times tuned
- base, averaged at the two ends). A refined part's share has its group's factor share / phi.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.readouts import READOUTS, score
from forgetguard.errors import MeasurementError
from forgetguard.measures.behaviour import behaviour, check_length
from forgetguard.measures.origin_parts import EMBEDDINGS, Group, Part, groups, rows_of
from forgetguard.measures.origin_weights import Entries, Exchange, Side, Sums, exchange
from forgetguard.measures.parameter_drift import weight_pairs
from forgetguard.patching.budget import memory_errors
from forgetguard.patching.forward import forward

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import ModelPair

PASSES = 40
GROUPS = 12  # the first parts: 24 passes in both directions
FEWEST_PASSES = 16  # both ends, and 7 parts in both directions
CARRIES = 0.1  # of the loss, from which on a part is refined
WORTH = 0.05  # of the loss, to first order, from which on a part inside is read
CONTROLS = 3  # parts that are also moved at random
TOKENS = 8  # rows of an embedding that are named, and exchanged together
_CHUNK = 1024  # tokens whose graph is held at once

QUANTITIES = ("readout", "accuracy", "top1")


@dataclass(frozen=True, slots=True)
class Amount:
    """Of the readout (mean over the pairs, in its own unit), of the share of pairs answered right,
    and of those whose answer is the likeliest of all tokens."""

    readout: float = 0.0
    accuracy: float = 0.0
    top1: float = 0.0

    def __sub__(self, other: Amount) -> Amount:
        return Amount(*(self.of(one) - other.of(one) for one in QUANTITIES))

    def of(self, quantity: str) -> float:
        """The number by its name."""
        return float(getattr(self, quantity))


@dataclass(frozen=True, slots=True)
class Share:
    """A part's. `alone`, `back`: what it costs in the base, and what tuned regains without it;
    `share`: of the whole loss; `random`: what the base loses where each entry moves as far, up or
    down by a coin, None where that was not read; `inside`: the part that this one refines;
    `new_task`: what tuned loses of the new task's mean readout where the part is given back, None
    where no new task was given, or inside a part."""

    part: Part
    alone: Amount
    back: Amount
    share: Amount
    random: Amount | None = None
    inside: Part | None = None
    new_task: float | None = None


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
        lost: whether the readout's loss can be told from nothing, by template; without that all
            shares are 0.
        parts: by share, the largest first; they sum to 1.
        refined: parts inside some of those.
        tokens: the rows that carry most of an embedding's share.
        interaction: what more than two parts do only together, as a share of the loss; it is in the
            parts' shares.
        passes: forward passes of all the prompts.
        new_task: the base's and tuned's mean readout of the new task, where one was given.
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
    new_task: tuple[float, float] | None = None


def origin(
    pair: ModelPair,
    capability: EncodedCapability,
    *,
    passes: int = PASSES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    new_task: EncodedCapability | None = None,
) -> Origin:
    """Share the loss from base to tuned among the parts of the checkpoint. The base alone is
    loaded; when this returns, or raises, its weights are what they were.

    Args:
        passes: forward passes of all prompts, at most; two of them with a backward pass.
        seed: of the random changes.
        progress: is told the passes done, of at most how many.
        new_task: what the tuning was for, to see what undoing each part costs there: a pass of its
            prompts for each part, and two.

    Raises:
        MeasurementError: too few passes, or logits or weights that are not finite.
        CheckpointError: as `weight_pairs` and `exchange`.
        ForgetguardError: the model's parts cannot be found, or a prompt is too long for it.
    """
    if passes < FEWEST_PASSES:
        raise MeasurementError(f"passes={passes}: the origin of a loss needs {FEWEST_PASSES}")
    ends = weight_pairs(pair.base.spec, pair.tuned.spec, pair.options, untied=True)
    with memory_errors("measuring the origin of a loss"), pair.base.open() as model:
        anatomy = locate(model)
        for one in (capability, *([] if new_task is None else [new_task])):
            check_length(
                anatomy, one.capability.name, (each.clean.shape[1] for each in one.batches)
            )
        with exchange(model, ends) as weights:
            run = _Run(anatomy, capability, weights, passes, seed, progress, new_task)
            found = run.origin()
    decode = pair.base.tokenizer.decode
    tokens = tuple(replace(one, text=str(decode([one.id]))) for one in found.tokens)
    return replace(found, tokens=tokens)


def shares(loss: float, alone: Iterable[float], back: Iterable[float]) -> tuple[list[float], float]:
    """(each part's share of the loss, what is left to more than two parts as a share of it); all 0
    where nothing was lost, or no part does harm by itself."""
    phi = [(one + other) / 2 for one, other in zip(alone, back, strict=True)]
    harm = [max(one, 0.0) for one in phi]  # a part that helps is given none of what is left
    left = loss - sum(phi)
    if loss <= 0:
        return [0.0] * len(phi), 0.0
    if not sum(harm):
        return [0.0] * len(phi), 1.0
    each = left / sum(harm)
    return [(one + each * mine) / loss for one, mine in zip(phi, harm, strict=True)], left / loss


@dataclass(slots=True)
class _Run:
    """One attribution: what it reads, pass by pass."""

    anatomy: Anatomy
    capability: EncodedCapability
    weights: Exchange
    most: int
    seed: int
    progress: Callable[[int, int], None] | None
    new_task: EncodedCapability | None
    passes: int = 0
    slopes: dict[str, Sums] = field(default_factory=dict)  # of both ends together

    def origin(self) -> Origin:
        parts = groups(self.anatomy, self.weights.parameters, min(GROUPS, (self.most - 2) // 2))
        base, before = self._read()
        new_base = self._read_new()
        alone = [base - self._with(one, Side.TUNED, Side.BASE) for one in parts]
        self._all_tuned()
        tuned, after = self._read() if parts else (base, before)
        new_tuned = self._read_new() if parts else new_base
        back: list[Amount] = []
        undoing: list[float | None] = []
        for one in parts:
            self.weights.put(one.slices, Side.BASE)
            back.append(self._read()[0] - tuned)
            undoing.append(None if new_tuned is None else new_tuned - (self._read_new() or 0.0))
            self.weights.put(one.slices, Side.TUNED)
        drop, loss = before - after, base - tuned
        lost = _is_lost(drop, [one.pair.template for one in self.capability.encoded.pairs])
        found, interaction = _shared(parts, alone, back, loss if lost else Amount())
        undone = {group.part: cost for group, cost in zip(parts, undoing, strict=True)}
        found = [replace(one, new_task=undone[one.part]) for one in found]
        groups_of = {group.part: group for group in parts}
        carry = [(one, groups_of[one.part]) for one in found if one.share.readout >= CARRIES]
        refined: list[Share] = []
        tokens: tuple[Token, ...] = ()
        if carry and self.most - self.passes > CONTROLS:
            inside, tokens = self._inside(carry, loss.readout)  # it leaves the base's weights
            costs = [base - self._with(one, Side.TUNED, Side.BASE) for _, one in inside]
            randomly = {
                one.part: base - self._with(group, Side.RANDOM, Side.BASE)
                for one, group in carry[:CONTROLS]
            }
            found = [replace(one, random=randomly.get(one.part)) for one in found]
            self._all_tuned()
            for (whole, one), cost in zip(inside, costs, strict=True):
                gain = self._with(one, Side.BASE, Side.TUNED) - tuned
                refined.append(
                    Share(one.part, cost, gain, _within(whole, cost, gain), None, whole.part)
                )
        shown = tuple(found), tuple(refined), tokens
        ends = None if new_base is None or new_tuned is None else (new_base, new_tuned)
        return Origin(len(drop), base, tuned, lost, *shown, interaction, self.passes, ends)

    def _inside(
        self, carry: Sequence[tuple[Share, Group]], loss: float
    ) -> tuple[list[tuple[Share, Group]], tuple[Token, ...]]:
        """What inside the parts that carry the loss to read, each with the part that it is in: rows
        of an embedding, then what carries most to first order, a head after its projection. The
        model is tuned's when this begins and the base's when it ends."""
        most = (self.most - self.passes - 2 - CONTROLS) // 2
        inner = [one for one in carry if one[1].inside or one[0].part.kind in EMBEDDINGS]
        names = [name for _, group in inner for name in group.slices]
        if not names or most < 1:
            self.weights.restore()
            return [], ()
        self._slope(names)
        self.weights.restore()
        self._slope(names)
        tokens: tuple[Token, ...] = ()
        chosen: list[tuple[Share, Group]] = []
        waiting: list[tuple[float, Share, Group]] = []

        def add(part: Share, group: Group, worth: float) -> None:
            sizes = [abs(_first_order(one, self.slopes)) for one in group.inside]
            for one, size in zip(group.inside, sizes, strict=True):
                own = worth * size / max(sum(sizes), 1e-300)
                waiting.extend([(own, part, one)] if own >= WORTH else [])

        for part, group in inner:
            add(part, group, part.share.readout)
            if part.part.kind in EMBEDDINGS and not tokens:
                tokens = _tokens(self.slopes[next(iter(group.slices))], loss)
                chosen += [(part, rows_of(group, [row.id for row in tokens]))] if tokens else []
        while waiting and len(chosen) < most:
            best = max(waiting, key=lambda one: one[0])
            waiting.remove(best)
            chosen.append(best[1:])
            add(best[1], best[2], best[0])
        return chosen, tokens

    def _all_tuned(self) -> None:
        self.weights.put(dict.fromkeys(self.weights.parameters, Entries()), Side.TUNED)

    def _with(self, group: Group, side: Side, then: Side) -> Amount:
        """The behaviour with one part of `side`, which is put back to `then`."""
        self.weights.put(group.slices, side, self.seed)
        found, _ = self._read()
        self.weights.put(group.slices, then)
        return found

    def _read(self) -> tuple[Amount, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """What the model as it is does on the prompts, and its readout pair by pair."""
        found = behaviour(self.anatomy, self.capability)
        self._count()
        means = (one.mean() for one in (found.readout, found.correct, found.top1))
        return Amount(*map(float, means)), found.readout

    def _read_new(self) -> float | None:
        """The mean readout of the new task, where one was given."""
        if self.new_task is None:
            return None
        found = behaviour(self.anatomy, self.new_task)
        return float(found.readout.mean())

    def _count(self) -> None:
        self.passes += 1
        if self.progress is not None:
            self.progress(self.passes, self.most)

    def _slope(self, names: Iterable[str]) -> None:
        """Add to `slopes` how much readout is lost to first order from base to tuned, by row and by
        column of each tensor, with the gradient of the model as it is. No more than one tensor's is
        held."""
        own = {self.weights.parameters[name]: name for name in names}

        def take(parameter: Tensor) -> None:
            name = own[parameter]  # type: ignore[index]
            rows, columns = self.weights.sums(name)
            before = self.slopes.get(name, (0.0, 0.0))
            self.slopes[name] = before[0] + rows, before[1] + columns

        with ExitStack() as stack:
            for one in own:
                stack.callback(one.requires_grad_, False)
                hook = one.requires_grad_(True).register_post_accumulate_grad_hook(take)
                stack.callback(hook.remove)
            self._backward()
        self._count()

    def _backward(self) -> None:
        readout, count = READOUTS[self.capability.capability.readout], self.capability.n_pairs
        for batch in self.capability.batches:
            rows = max(1, _CHUNK // batch.clean.shape[1])
            for chunk in torch.arange(len(batch.pairs)).split(rows):
                with torch.enable_grad():
                    logits = forward(self.anatomy, batch.clean[chunk], batch.positions)
                    cut = logits[..., : self.capability.vocabulary].float()
                    read = score(readout, cut, batch, chunk)
                    torch.autograd.backward(-read.sum() / count)


def _is_lost(drop: np.ndarray[Any, Any], templates: Sequence[str | None]) -> bool:
    """Whether the mean of [n] losses is above 0 by more than Student's t allows in one of 40 cases;
    by template, of which losses have much in common, where there are several."""
    names = templates if len({*templates}) > 1 else range(len(drop))
    codes = np.unique(np.array([str(one) for one in names]), return_inverse=True)[1]
    count = int(codes.max()) + 1
    if count < 2:
        return bool(drop.mean() > 0)
    off = np.bincount(codes, weights=drop - drop.mean())
    error = float(np.sqrt((off**2).sum() * count / (count - 1))) / len(drop)
    return bool(drop.mean() > special.stdtrit(count - 1, 0.975) * error)


def _shared(
    parts: Sequence[Group], alone: Sequence[Amount], back: Sequence[Amount], loss: Amount
) -> tuple[list[Share], Amount]:
    """The parts with their shares, the largest first, and the interaction."""
    found = {
        name: shares(loss.of(name), [one.of(name) for one in alone], [one.of(name) for one in back])
        for name in QUANTITIES
    }
    each = zip(*(found[name][0] for name in QUANTITIES), strict=True)
    made = [
        Share(group.part, cost, gain, Amount(*own))
        for group, cost, gain, own in zip(parts, alone, back, each, strict=True)
    ]
    made.sort(key=lambda one: -one.share.readout)
    return made, Amount(*(found[name][1] for name in QUANTITIES))


def _within(group: Share, alone: Amount, back: Amount) -> Amount:
    """A refined part's share, by the factor of its group."""

    def one(name: str) -> float:
        whole = group.alone.of(name) + group.back.of(name)
        return (alone.of(name) + back.of(name)) / whole * group.share.of(name) if whole else 0.0

    return Amount(*map(one, QUANTITIES))


def _first_order(group: Group, slopes: Mapping[str, Sums]) -> float:
    total = 0.0
    for name, entries in group.slices.items():
        rows, columns = slopes[name]
        if entries.columns is not None:
            total += float(columns[entries.columns].sum())
        else:
            total += float((rows if entries.rows is None else rows[entries.rows]).sum())
    return total


def _tokens(slope: Sums, loss: float) -> tuple[Token, ...]:
    """The rows that lose most, to first order (a slope is of two ends)."""
    rows = slope[0] / (2 * loss)
    order = torch.argsort(rows, descending=True, stable=True)[:TOKENS]
    return tuple(Token(int(one), float(rows[one])) for one in order if rows[one] > 0)
