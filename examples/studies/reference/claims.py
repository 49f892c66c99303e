"""What the literature claims, each as a rule and the verdict that it gives on the data.

A verdict is `reproduced`, `not reproduced`, `undecided` or `not tested`. The rule is the same
throughout: a number whose sign the claim states, with an interval (95 %; Student's t over seeds, or
a bootstrap that draws whole configurations). Where the interval excludes 0 on the claimed side the
claim is reproduced here; on the other side, not reproduced; else undecided. A claim of several
parts is reproduced when all of them are, and not reproduced when one is not. Claims that compare
SFT with RL are judged on each pair of groups that the plan compares. Nothing is corrected for the
number of claims.

A rule must not hold where only something trivial acts: a decline alone is no peak, and an RL that
does nothing restores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from examples.studies.reference.collecting import (
    METRICS,
    Record,
    Table,
    divergence_of,
    group_of,
    paired,
)
from examples.studies.reference.intervals import (
    Interval,
    over_configurations,
    over_seeds,
    pearson,
    spearman,
)

REPRODUCED, REFUTED, UNDECIDED, UNTESTED = (
    "reproduced", "not reproduced", "undecided", "not tested",
)  # fmt: skip


# As claims name the two that are compared; each pair of `compared` in the plan says which groups
# they are.
SFT, RL = "sft", "rl"
_ROUNDING = 1e-9  # less than this is how sums are rounded: no difference
_PAIR = "pair"  # of a table: the two groups that a claim is judged on


@dataclass(frozen=True, slots=True)
class Part:
    """A number that a claim says is above 0; None: what it needs was not measured."""

    name: str
    number: Interval | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A paper's statement, how it is made a number here, and from where in the table.

    `parts` gives the numbers that decide; `beside` others worth reading with them. One that
    `compares` SFT with RL is judged on each pair of the plan, others once."""

    key: str
    paper: str
    says: str
    here: str
    parts: Callable[[Table], Sequence[Part]]
    beside: Callable[[Table], Sequence[Part]] = lambda _: ()
    compares: bool = False


def judge(found: Table) -> list[dict[str, Any]]:
    """Every claim's verdict with its numbers, in plain values."""
    return [_judged(claim, found, pair) for claim in CLAIMS for pair in _pairs(claim, found)]


def _pairs(claim: Claim, found: Table) -> Sequence[Sequence[str] | None]:
    return found["plan"]["compared"] if claim.compares else [None]


def verdict(parts: Sequence[Part]) -> str:
    """What the parts' intervals say together."""
    if not parts or any(part.number is None or part.number["value"] is None for part in parts):
        return UNTESTED
    signs = [_sign(part.number) for part in parts if part.number is not None]
    if any(sign < 0 for sign in signs):
        return REFUTED
    return REPRODUCED if all(sign > 0 for sign in signs) else UNDECIDED


def _sign(number: Interval) -> int:
    """Of an interval that excludes 0; 0 where it does not, or where there is none."""
    low, high = number["low"], number["high"]
    if low is None or high is None:
        return 0
    return 1 if low > _ROUNDING else -1 if high < -_ROUNDING else 0


def _judged(claim: Claim, found: Table, pair: Sequence[str] | None) -> dict[str, Any]:
    asked = {**found, _PAIR: pair}
    parts, beside = list(claim.parts(asked)), list(claim.beside(asked))
    return {
        "key": claim.key,
        "pair": None if pair is None else list(pair),
        "paper": claim.paper,
        "says": claim.says,
        "here": claim.here,
        "verdict": verdict(parts),
        "numbers": [{"name": part.name, **(part.number or {})} for part in parts],
        "beside": [{"name": part.name, **(part.number or {})} for part in beside],
    }


# --- at matched score, seed by seed ------------------------------------------------------------


def _difference(name: str, first: str, second: str, metric: str) -> Callable[[Table], list[Part]]:
    return lambda found: [_matched_difference(found, name, first, second, metric)]


def _matched_difference(found: Table, name: str, first: str, second: str, metric: str) -> Part:
    if found[_PAIR] is not None:
        groups = dict(zip((SFT, RL), found[_PAIR], strict=True))
        first, second = groups.get(first, first), groups.get(second, second)
    values = paired(found, first, second, METRICS[metric])
    return Part(name, over_seeds(values) if values else None)


def _all(*parts: Callable[[Table], Sequence[Part]]) -> Callable[[Table], list[Part]]:
    return lambda found: [one for part in parts for one in part(found)]


_LOWER_DCV = _difference("circuit DCV, sft - rl", "sft", "rl", "circuit DCV")
_MORE_KEPT = _difference("prior readout kept, rl - sft", "rl", "sft", "prior readout kept")
_LARGER_KL = _difference(
    "forward KL on the new task, rl - sft", "rl", "sft", "forward KL, new task"
)
_LARGER_REVERSE = _difference(
    "reverse KL on the new task, rl - sft", "rl", "sft", "reverse KL, new task"
)


def _retention(found: Table) -> list[Part]:
    """Chance-corrected, mean over tasks, seed by seed; tasks that abstain are left out."""
    by_seed: dict[int, list[float]] = {}
    for one in found["comparisons"]:
        if one["pair"] != found[_PAIR]:
            continue
        sft, rl = (one["columns"][role]["retention"] for role in ("tuned", "reference"))
        known = [part for part in (sft, rl) if part is not None and part["abstained"] is None]
        if len(known) == 2 and None not in (sft["corrected"], rl["corrected"]):
            by_seed.setdefault(one["seed"], []).append(rl["corrected"] - sft["corrected"])
    values = [sum(one) / len(one) for _, one in sorted(by_seed.items())]
    name = "retention of the base's circuit beyond chance, rl - sft"
    return [Part(name, over_seeds(values) if values else None)]


# --- along a run -------------------------------------------------------------------------------


def _along(found: Table, recipe: str) -> dict[str, list[Record]]:
    """Checkpoints by run, in the order of their steps."""
    runs: dict[str, list[Record]] = {}
    for one in found["checkpoints"]:
        if one["recipe"] == recipe:
            runs.setdefault(one["run"], []).append(one)
    return {name: sorted(run, key=lambda one: one["step"]) for name, run in runs.items()}


def _by_seed(values: Sequence[tuple[int, float]]) -> Interval | None:
    """The mean within each seed, then over seeds."""
    seeds: dict[int, list[float]] = {}
    for seed, value in values:
        seeds.setdefault(seed, []).append(value)
    means = [sum(one) / len(one) for _, one in sorted(seeds.items())]
    return over_seeds(means) if means else None


def _whole_runs(found: Table, recipe: str) -> list[list[Record]]:
    """Those with two checkpoints or more, the last at the end, and all of them read."""
    return [
        run
        for run in _along(found, recipe).values()
        if len(run) > 1 and run[-1]["final"] and None not in [one["kept"] for one in run]
    ]


def _peaks(found: Table) -> list[Part]:
    """A peak is above what is on either side of it: the base, and the end of the run."""
    above, after = [], []
    for run in _whole_runs(found, "sft"):
        best, seed = _best(run), run[0]["seed"]
        above.append((seed, best["kept"] - found["base"]["kept"]))
        after.append((seed, best["kept"] - run[-1]["kept"]))
    return [
        Part("prior readout kept, best checkpoint but the last - base", _by_seed(above)),
        Part("prior readout kept, best checkpoint but the last - last", _by_seed(after)),
    ]


def _best(run: Sequence[Record]) -> Record:
    """Of the checkpoints before the last; of equals the earliest."""
    return max(run[:-1], key=lambda one: float(one["kept"]))


def _declines(found: Table) -> list[Part]:
    """From the first checkpoint of a run to the last, and when the best one is."""
    runs = _whole_runs(found, "sft")
    declines = [(run[0]["seed"], run[0]["kept"] - run[-1]["kept"]) for run in runs]
    when = [(run[0]["seed"], _best(run)["step"] / run[-1]["step"]) for run in runs]
    return [
        Part("prior readout kept, first checkpoint - last", _by_seed(declines)),
        Part("step of the best checkpoint but the last, as a share of the run", _by_seed(when)),
    ]


def _early(found: Table) -> list[Part]:
    """Prior loss at the last checkpoint within half of the steps, minus what the rest adds."""
    values = []
    for run in _along(found, "sft").values():
        half = [one for one in run if 2 * one["step"] <= run[-1]["step"]]
        if half and run[-1]["final"] and None not in (half[-1]["kept"], run[-1]["kept"]):
            first, whole = 1 - half[-1]["kept"], 1 - run[-1]["kept"]
            values.append((run[0]["seed"], first - (whole - first)))
    return [Part("prior loss up to the checkpoint before half - after it", _by_seed(values))]


def _restores(found: Table) -> list[Part]:
    """Each run that starts from an SFT checkpoint, its end against its start."""
    values = [(seed, value) for (_, seed, _), value in _restored(found).items()]
    return [Part("prior readout kept, end of sft-rl - its start", _by_seed(values))]


def _restored(found: Table) -> dict[tuple[int, int, float], float]:
    """By start, seed and learning rate: what is kept at the end, minus at the start."""
    by_name = {(one["run"], one["step"]): one for one in found["checkpoints"]}
    result = {}
    for run in _along(found, "sft-rl").values():
        last = run[-1]
        began = by_name.get((last["after"], last["start"]))
        if last["final"] and began and None not in (last["kept"], began["kept"]):
            key = (last["start"], last["seed"], last["learning_rate"])
            result[key] = last["kept"] - began["kept"]
    return result


def _bounded(found: Table) -> list[Part]:
    """What reinforcement restored from the earliest SFT checkpoint, and how much less from the
    latest. What it ends with would not do: where it does nothing, the later start ends lower."""
    restored = _restored(found)
    starts = sorted({start for start, _, _ in restored})
    early = [(seed, value) for (start, seed, _), value in restored.items() if start == starts[0]]
    less = [
        (seed, value - restored[starts[-1], seed, rate])
        for (start, seed, rate), value in restored.items()
        if len(starts) > 1 and start == starts[0] and (starts[-1], seed, rate) in restored
    ]
    return [
        Part("prior readout restored (end - start), from the early start", _by_seed(early)),
        Part("prior readout restored, early start - late start", _by_seed(less)),
    ]


def _lately(found: Table) -> list[Part]:
    """What reinforcement restored from the latest start."""
    restored = _restored(found)
    latest = max((start for start, _, _ in restored), default=None)
    values = [(seed, value) for (start, seed, _), value in restored.items() if start == latest]
    name = "prior readout restored (end - start), from the late start"
    return [Part(name, _by_seed(values))] if values else []


# --- over checkpoints --------------------------------------------------------------------------


def _forgetting(
    name: str, where: str, direction: str, measure: Callable[..., float] = spearman
) -> Callable[[Table], list[Part]]:
    """The correlation of a KL with what is lost, over every checkpoint."""
    kl = divergence_of(where, direction)

    def part(found: Table) -> list[Part]:
        known = [
            (kl(one), 1 - one["kept"], f"{group_of(one)} at {one['learning_rate']:g}")
            for one in found["checkpoints"]
            if kl(one) is not None and one["kept"] is not None
        ]
        if len(known) < 3:
            return [Part(name, None)]
        x, y, configurations = zip(*known, strict=True)
        return [Part(name, over_configurations(measure, x, y, configurations))]

    return part


def _within(found: Table) -> list[Part]:
    """The same correlation within each recipe: recipes that differ as a whole could make it."""
    parts = []
    for group in dict.fromkeys(map(group_of, found["checkpoints"])):
        own = {
            **found,
            "checkpoints": [one for one in found["checkpoints"] if group_of(one) == group],
        }
        name = f"Spearman, forward KL on the new task against prior loss, within {group}"
        parts += _forgetting(name, "new", "forward")(own)
    return [part for part in parts if part.number is not None]


def _untested(name: str) -> Callable[[Table], list[Part]]:
    return lambda _: [Part(name, None)]


_CIRCUITS, _HEALS = "arXiv 2605.28860", "arXiv 2509.12235"
_RAZOR, _MODES = "arXiv 2509.04259 (RL's Razor)", "arXiv 2603.12163"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "circuit-kept",
        _CIRCUITS,
        "RL keeps more of the base's circuits than SFT does.",
        "Circuit DCV (mean over circuits) of SFT minus that of RL at matched new-task score, per "
        "seed, is above 0.",
        _LOWER_DCV,
        beside=_all(
            _MORE_KEPT, _difference("prior accuracy, rl - sft", "rl", "sft", "prior accuracy")
        ),
        compares=True,
    ),
    Claim(
        "retention",
        _CIRCUITS,
        "More of the base's circuit heads are found again in the RL model than in the SFT model.",
        "Retention of the circuits that binary masks find, corrected for chance, of RL minus that "
        "of SFT at matched score, mean over tasks, per seed, is above 0. Tasks where the base "
        "does not agree with itself are left out.",
        _retention,
        compares=True,
    ),
    Claim(
        "larger-kl",
        _CIRCUITS,
        "RL moves the outputs further than SFT, and yet keeps more of the circuits.",
        "At matched score: forward KL from the base on new-task prompts of RL minus SFT is above "
        "0, and circuit DCV of SFT minus RL is above 0. The paper's KL is not known to us in its "
        "direction and prompts.",
        _all(_LARGER_KL, _LOWER_DCV),
        beside=_LARGER_REVERSE,
        compares=True,
    ),
    Claim(
        "peaks-early",
        _HEALS,
        "Out-of-distribution performance peaks early in SFT and declines after.",
        "A peak is above both of its sides. The share of the base's readout that is kept on prior "
        "prompts, at the best checkpoint of an SFT run but the last (mean over learning rates), "
        "per seed: minus the base's own it is above 0, and minus that at the run's last checkpoint "
        "it is above 0. The best of several noisy numbers lies too high, so both lean towards the "
        "claim. A decline from the base on is no peak. How early the best one is stands beside it.",
        _peaks,
        beside=_declines,
    ),
    Claim(
        "forgets-early",
        _HEALS,
        "Most of what SFT forgets is forgotten early.",
        "Prior loss at the last checkpoint within half of the steps minus what the rest of the run "
        "adds (mean over learning rates), per seed, is above 0. Our reading: the paper speaks of "
        "the peak. Where no checkpoint is at half, the first part is the shorter one, which leans "
        "against the claim.",
        _early,
    ),
    Claim(
        "rl-restores",
        _HEALS,
        "RL after SFT restores what SFT forgot.",
        "The share of the base's readout kept at the end of sft-rl minus at the SFT checkpoint "
        "that it started from (mean over starts), per seed, is above 0.",
        _restores,
    ),
    Claim(
        "within-bounds",
        _HEALS,
        "RL restores only within bounds: after too much SFT it does not.",
        "What sft-rl restored (share of the base's readout kept, at its end minus at its start), "
        "per seed: from the earliest start it is above 0, and from the earliest minus from the "
        "latest it is above 0. What it ends with says nothing: from the later start that is less "
        "even if RL does nothing.",
        _bounded,
        beside=_lately,
    ),
    Claim(
        "kl-predicts",
        _RAZOR,
        "Forgetting is predicted by the forward KL from the base on the new task, whatever trained "
        "it.",
        "Spearman's correlation of forward KL on new-task prompts with prior loss (1 - share of "
        "the base's readout kept), over all checkpoints, is above 0; the interval draws whole "
        "configurations (recipe, learning rate and start, with all their seeds): the claim is "
        "about whatever trained the model.",
        _forgetting("Spearman, forward KL on the new task", "new", "forward"),
        beside=_all(
            _forgetting("Pearson, forward KL on the new task", "new", "forward", pearson),
            _forgetting("Spearman, reverse KL on the new task", "new", "reverse"),
            _forgetting("Spearman, forward KL on prior prompts", "prior", "forward"),
            _within,
        ),
    ),
    Claim(
        "mass-collapses",
        _MODES,
        "Forward-KL training on new data (SFT) drives the old mode's mass to 0; reverse-KL "
        "training (RL) keeps it.",
        "The old mode's mass is the probability of the right answers on prior prompts, relative "
        "to the base's: that of RL minus that of SFT at matched score, per seed, is above 0. Our "
        "operationalisation of a theorem on two-mode mixtures.",
        _difference("probability kept, rl - sft", "rl", "sft", "prior answers' probability kept"),
        compares=True,
    ),
    Claim(
        "replay-keeps-mass",
        _MODES,
        "Replay of old data keeps the old mode's mass under forward-KL training.",
        "Probability of the right answers on prior prompts, relative to the base's, of sft-replay "
        "minus sft at matched score, per seed, is above 0.",
        _difference(
            "probability kept, sft-replay - sft",
            "sft-replay",
            "sft",
            "prior answers' probability kept",
        ),
    ),
    Claim(
        "drift-by-overlap",
        _MODES,
        "Under reverse-KL training the old mode drifts in proportion to its overlap with the new "
        "one.",
        "Not tested here: it needs new tasks whose overlap with the old ones is varied.",
        _untested("drift against overlap"),
    ),
)
