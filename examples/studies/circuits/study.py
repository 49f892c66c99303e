"""Runs every discovery method on every capability of a base; what comes out is plain data.

Each capability's pairs are split into halves, once for each seed: a method ranks the heads on one
half, and its circuit is cut on the other. For the first split the halves are exchanged, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

import forgetguard as fg
from examples.studies import shares
from examples.studies.tiny_prompts import TASKS_OF_TINY, held_out_pairs
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.variants import halves
from forgetguard.discovery.circuit import FAITHFUL, Found
from forgetguard.discovery.cost import clock
from forgetguard.discovery.curve import Curve, faithfulness_curve
from forgetguard.discovery.methods import METHODS, method
from forgetguard.discovery.on_checkpoint import check
from forgetguard.discovery.ranking import Ranking
from forgetguard.discovery.store import Store, identity
from forgetguard.errors import CapabilityError, SpecificationError
from forgetguard.measures.ability import check_able
from forgetguard.measures.ablation import ABLATIONS
from forgetguard.measures.faithfulness import faithfulness
from forgetguard.measures.necessity import necessity_and_sufficiency
from forgetguard.patching.budget import memory_errors

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import Checkpoint

TINY = "tiny:base"
# The bundled circuits of the tiny base were found on these prompts, too.
PAIRS_SEED = 1001
RANDOM_SEEDS = 8  # at least so many draws of the control, which costs no ranking
DIGITS = 4  # significant ones that are kept of every number

Say = Callable[[str], None]
Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """A method with settings, as the study names it."""

    label: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_UNCHECKED = {"verify": 0.0, "audit": 0}
# Every method of discovery/methods.py is here at least once; the first is what others are
# compared with.
VARIANTS: Mapping[str, Variant] = {
    "activation": Variant("activation patching", "activation_patching"),
    "denoising": Variant(
        "activation patching, denoising", "activation_patching", {"direction": "denoising"}
    ),
    "attribution": Variant("attribution patching, checked", "attribution_patching"),
    "attribution_alone": Variant("attribution patching", "attribution_patching", _UNCHECKED),
    "attribution_qkv": Variant(
        "attribution at q, k, v, QK fix", "attribution_patching", {**_UNCHECKED, "nodes": "qkv"}
    ),
    "attribution_qkv_linear": Variant(
        "attribution at q, k, v, linear",
        "attribution_patching",
        {**_UNCHECKED, "nodes": "qkv", "qk_fix": False},
    ),
    "integrated": Variant("integrated gradients", "integrated_gradients"),
    "masking": Variant("binary masking, change", "binary_masking"),
    "masking_suffice": Variant(
        "binary masking, suffice", "binary_masking", {"objective": "suffice"}
    ),
    "desiderata": Variant("desiderata masking", "desiderata_masking"),
    "random": Variant("random order", "random"),
}


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """Keys of VARIANTS, for keys or for names of methods, which stand for all their variants;
    activation patching, which the others are compared with, is always among them.

    Raises:
        SpecificationError: a name is neither.
    """
    if names is None:
        return tuple(VARIANTS)
    for name in names:
        if name not in {*VARIANTS, *METHODS}:
            raise SpecificationError(
                f"unknown method {name!r}; there are {', '.join(METHODS)} and, as their variants, "
                + ", ".join(VARIANTS)
            )
    wanted = {"activation", *names}
    return tuple(key for key, one in VARIANTS.items() if key in wanted or one.method in wanted)


def study(
    base: str = TINY,
    *,
    tasks: Sequence[str] = tuple(TASKS_OF_TINY),
    pairs: int = 128,
    seeds: int = 3,
    variants: Sequence[str] = tuple(VARIANTS),
    cache: Path | None = None,
    say: Say = lambda line: None,
) -> Data:
    """Everything that the page shows, as values that JSON can hold (docs/circuits.md says what).

    What is finished is kept in `cache` (by default the user's) and taken up again.

    Raises:
        ForgetguardError: the base cannot be measured, or there is no task that it can do and that
            suits its tokenizer.
    """
    if seeds < 1:
        raise SpecificationError(f"seeds is {seeds}: give at least 1")
    checkpoint = fg.load(base=base).base
    with memory_errors("studying circuits"), checkpoint.open() as model:
        anatomy = locate(model)
        members = anatomy.members(mlps=False)
        found: Data = {}
        skipped: dict[str, str] = {}
        for task in tasks:
            try:
                capability = _capability(base, task, pairs).encoded(checkpoint.tokenizer)
                work = _Work(checkpoint, anatomy, capability, members, cache, say)
                found[task] = _task(work, seeds, variants)
            except CapabilityError as error:
                skipped[task] = str(error)
                say(f"{task}: skipped; {error}")
    if not found:
        raise CapabilityError(f"nothing to study on {base}: {' '.join(skipped.values())}")
    return {
        "base": base,
        "pairs": pairs,
        "seeds": seeds,
        "faithful": FAITHFUL,
        "threads": torch.get_num_threads(),
        "members": [str(member) for member in members],
        "variants": {
            key: {
                "label": VARIANTS[key].label,
                "method": VARIANTS[key].method,
                "settings": dict(VARIANTS[key].settings),
            }
            for key in variants
        },
        "tasks": found,
        "skipped": skipped,
    }


def _capability(base: str, task: str, pairs: int) -> Capability:
    """For the tiny base, prompts that it was not trained on."""
    if base == TINY and task in TASKS_OF_TINY:
        return fg.capability(task, pairs=tuple(islice(held_out_pairs(task, PAIRS_SEED), pairs)))
    return fg.capability(task, pairs=pairs, seed=PAIRS_SEED)


@dataclass(frozen=True, slots=True)
class _Work:
    """One capability on one base, and where finished parts are kept."""

    checkpoint: Checkpoint
    anatomy: Anatomy
    capability: EncodedCapability
    members: tuple[Member, ...]
    cache: Path | None
    say: Say

    @property
    def task(self) -> str:
        return self.capability.capability.name

    def store(self, **what: object) -> Store:
        """The store of one part of the study."""
        parameter = next(self.anatomy.model.parameters())
        origin = {
            "weights": self.checkpoint.fingerprint.weights,
            "dtype": str(parameter.dtype),
            "device": parameter.device.type,
        }
        what = {"study": "circuit_study 2", **what}
        return Store.open(identity(origin, self.capability, self.members, what), self.cache)


@dataclass(frozen=True, slots=True)
class _Split:
    """The half that heads are ranked on, and the half that the ranking is cut on."""

    seed: int
    exchanged: bool
    ranked_on: EncodedCapability
    held_out: EncodedCapability


def _splits(capability: EncodedCapability, seeds: int) -> Iterator[_Split]:
    for seed in range(seeds):
        first, second = halves(capability, seed)
        yield _Split(seed, False, first, second)
        if seed == 0:
            yield _Split(seed, True, second, first)


def _task(work: _Work, seeds: int, variants: Sequence[str]) -> Data:
    accuracy = check_able(work.anatomy, work.capability)
    check(work.anatomy, work.capability, work.members)
    records: list[Data] = []
    ablations: list[Data] = []
    most = max(seeds, RANDOM_SEEDS) if "random" in variants else seeds
    for split in _splits(work.capability, most):
        curves: dict[tuple[Member, ...], Curve] = {}
        for variant in variants:
            if not _wanted(variant, split, seeds):
                continue
            found, extra = _found(work, split, variant, curves, accuracy)
            records.append(_record(found, extra, split, variant, work.members))
            if variant == "activation" and not split.exchanged:
                ablations.append(_ablations(work, split, found.circuit))
    return {"accuracy": _short(accuracy), **_roles(work), "records": records, "ablated": ablations}


def _wanted(variant: str, split: _Split, seeds: int) -> bool:
    """A random order does not depend on the half, and it alone has further seeds. What has a
    variant of the same method before it is not run on the exchanged halves."""
    if variant == "random":
        return not split.exchanged
    if split.exchanged and variant == "masking_suffice":
        return False
    return split.seed < seeds


def _found(
    work: _Work,
    split: _Split,
    variant: str,
    curves: dict[tuple[Member, ...], Curve],
    accuracy: float,
) -> tuple[Found, Mapping[str, float | None]]:
    """The circuit of one variant on one split, and beside it `seconds` of the ranking (None where
    it had been interrupted), `seconds_curve`, and `selected`, the faithfulness of the method's own
    selection. Equal rankings share a curve in `curves`."""
    one = VARIANTS[variant]
    store = work.store(
        method=one.method, seed=split.seed, exchanged=split.exchanged, settings=dict(one.settings)
    )
    found, extra = store.load_found(), store.load("beside")
    if found is None or extra is None or extra.shape != (3,):
        work.say(
            f"{work.task}, split {split.seed}{' exchanged' if split.exchanged else ''}: {one.label}"
        )
        found, extra = _find(work, split, one, curves, accuracy, store)
        store.save_found(found)
        store.save("beside", extra)
    curves[found.ranking.order] = found.curve
    values = [None if np.isnan(value) else float(value) for value in extra]
    return found, dict(zip(("seconds", "seconds_curve", "selected"), values, strict=True))


def _find(
    work: _Work,
    split: _Split,
    one: Variant,
    curves: Mapping[tuple[Member, ...], Curve],
    accuracy: float,
    store: Store,
) -> tuple[Found, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    interrupted = any(store.folder.glob("*.npy"))
    now = clock(work.anatomy)
    began = now()
    rank = method(one.method, one.settings)
    ranking = rank(work.anatomy, split.ranked_on, work.members, seed=split.seed, saved=store)
    ranked = now()
    curve = curves.get(ranking.order) or _curve(work, split, ranking, store)
    selected = np.nan
    if ranking.selected is not None:
        alone = faithfulness(
            work.anatomy, split.held_out, [ranking.selected], work.members, saved=store
        )
        selected = float(alone.values[0])
    size = curve.first(FAITHFUL) or len(ranking.order)
    circuit = tuple(sorted(ranking.order[:size]))
    done = now()
    times = [np.nan if interrupted else ranked - began, done - ranked]
    n = split.ranked_on.n_pairs
    found = Found(ranking, curve, circuit, FAITHFUL, accuracy, n, split.seed)
    return found, np.array([*times, selected])


def _curve(work: _Work, split: _Split, ranking: Ranking, store: Store) -> Curve:
    return faithfulness_curve(
        work.anatomy, split.held_out, ranking.order, faithful=FAITHFUL, saved=store
    )


def _record(
    found: Found,
    extra: Mapping[str, float | None],
    split: _Split,
    variant: str,
    members: Sequence[Member],
) -> Data:
    ranking, curve = found.ranking, found.curve
    record: Data = {
        "variant": variant,
        "seed": split.seed,
        "exchanged": split.exchanged,
        "order": [members.index(member) for member in ranking.order],
        "scores": [_short(ranking.scores[member]) for member in ranking.order],
        "sizes": list(curve.sizes),
        "faithfulness": [_short(value) for value in curve.faithfulness],
        "size": len(found.circuit),
        "cpr": _short(curve.cpr),
        "cmd": _short(curve.cmd),
        "seconds": _short(extra["seconds"]),
        "seconds_curve": _short(extra["seconds_curve"]),
    }
    if ranking.selected is not None:
        record["selected"] = [members.index(member) for member in ranking.selected]
        record["selected_faithfulness"] = _short(extra["selected"])
        record["unsettled"] = ranking.findings.get("unsettled")
        if "change" in ranking.findings:
            record["change"] = _short(cast("float", ranking.findings["change"]))
    if "missed" in ranking.findings:
        record["missed"] = ranking.findings["missed"]
        correlation = ranking.findings["correlation"]
        record["correlation"] = _short(correlation) if isinstance(correlation, float) else None
    return record


def _ablations(work: _Work, split: _Split, circuit: Sequence[Member]) -> Data:
    """Faithfulness of a circuit on the held-out half, the rest taken away in each way there is;
    and which further head would bring the most, with the faithfulness then."""
    store = work.store(part="ablations", seed=split.seed)
    outside = [member for member in work.members if member not in circuit]
    circuits = [circuit, *((*circuit, member) for member in outside)]
    found: Data = {"seed": split.seed}
    for kind in ABLATIONS:
        result = faithfulness(
            work.anatomy, split.held_out, circuits, work.members, kind=kind, saved=store
        )
        alone, *more = result.values.tolist()
        best = max(range(len(more)), key=lambda i: more[i], default=None)
        further = None if best is None else [str(outside[best]), _short(more[best])]
        found[kind] = {"value": _short(alone), "further": further}
    return found


def _roles(work: _Work) -> Data:
    """Necessity and sufficiency of every head on all pairs, and the whole effect in nats."""
    work.say(f"{work.task}: necessity and sufficiency")
    store = work.store(part="roles")
    roles = necessity_and_sufficiency(
        work.anatomy, work.capability, work.members, work.members, saved=store
    )
    necessity, sufficiency = shares.necessity(roles), shares.sufficiency(roles)
    return {
        "whole": _short(float(roles.whole.mean())),
        "necessity": [_short(necessity[member]) for member in work.members],
        "sufficiency": [_short(sufficiency[member]) for member in work.members],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
