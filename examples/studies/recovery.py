"""Lost, or only hidden? What ten rows of fine-tuning bring back of a capability, and what a linear
probe still reads: `python -m examples.studies.recovery base=B tuned=T --task induction`.

After arXiv 2501.13453, which finds that much of what fine-tuning seems to lose comes back with a
few examples of the old task; how it is measured here is ours.

    relearnt   (F after - F tuned) / (F base - F tuned), on pairs that were not trained on. Beside
               it the same rows with their answers dealt out anew: what a few steps do by
               themselves (the words of the answers, the format).
    probe      ridge regression from the residual stream after each layer, at the prompt's last
               token, to the answer's row of the base's unembedding less the distractor's; right
               where the map's value ranks the answer above the distractor on other pairs.

A capability whose readout is gone while the probe of tuned reads what the base's does is hidden; a
probe can also compute what the model never did, so the base's value at each layer stands beside it,
and layer 0 says what the last words alone tell.
"""

from __future__ import annotations

import random
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from examples.studies.command import Say, carry_out
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.spec import resolve
from forgetguard.checkpoints.tokenizers import load_tokenizer
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.measures.behaviour import behaviour
from forgetguard.measures.divergence import Passage, passage, passages_of
from forgetguard.measures.representation_drift import capture_streams

FloatArray = npt.NDArray[np.float64]
ROWS, HELD_OUT, PROBED = 10, 64, 128
RIDGE = 0.1  # of the mean squared norm of a row


@dataclass(frozen=True, slots=True)
class Level:
    """What a model does on the held-out pairs: mean readout in nats, share answered right."""

    readout: float
    accuracy: float


def level(anatomy: Anatomy, capability: EncodedCapability) -> Level:
    """Measure it."""
    found = behaviour(anatomy, capability)
    return Level(float(found.readout.mean()), float(found.correct.mean()))


def relearn(anatomy: Anatomy, rows: Sequence[Passage], rate: float) -> Iterator[int]:
    """Train all weights in place on the completions of `rows`: one AdamW step a pass over all of
    them, gradients clipped to norm 1. Gives the number of passes done, before the first too.

    Raises:
        MeasurementError: a row has no completion, or the loss is not finite.
    """
    if not rows or not all(row.targets for row in rows):
        raise MeasurementError("relearning needs rows with an answer each")
    parameters = list(anatomy.model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    done = 0
    while True:
        yield done
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            for row in rows:
                logits = anatomy.model(torch.tensor([row.ids])).logits[0, list(row.positions)]
                wanted = torch.tensor(row.targets)
                loss = torch.nn.functional.cross_entropy(logits.float(), wanted) / len(rows)
                if not torch.isfinite(loss):
                    raise MeasurementError(f"the loss is {loss.item()} after {done} passes")
                loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        for parameter in parameters:
            parameter.requires_grad_(False)
        done += 1


def dealt_anew(rows: Sequence[Passage], seed: int = 0) -> list[Passage]:
    """The rows with the completions of others: no row keeps its own, where completions differ
    enough for that."""
    order = list(range(len(rows)))
    shuffled = random.Random(seed)
    for _ in range(1000):
        shuffled.shuffle(order)
        if all(rows[at].targets != row.targets for at, row in zip(order, rows, strict=True)):
            break
    prompts = [row.ids[: row.positions[0] + 1] for row in rows]
    return [passage(prompt, rows[at].targets) for prompt, at in zip(prompts, order, strict=True)]


def probe(
    streams: npt.NDArray[np.float32], wanted: FloatArray, train: Sequence[int], test: Sequence[int]
) -> FloatArray:
    """By layer, the share of the `test` pairs whose probed vector lies on the answer's side:
    float64 [layer].

    Args:
        streams: [layer, pair, d_model].
        wanted: what is to be read, [pair, d_model]: the answer's direction less the distractor's.
        train, test: pairs, disjoint.

    Raises:
        MeasurementError: no pairs to learn from or to test on, or some are in both.
    """
    if not train or not test or {*train} & {*test}:
        raise MeasurementError("a probe learns on some pairs and is tested on others: give both")
    found = []
    for layer in streams.astype(np.float64):
        centre = layer[list(train)].mean(axis=0)
        x, new = layer[list(train)] - centre, layer[list(test)] - centre
        target = wanted[list(train)]
        gram = x @ x.T
        strength = RIDGE * max(float(np.trace(gram)) / len(x), 1e-30)
        offset = target.mean(axis=0)
        weights = np.linalg.solve(gram + strength * np.eye(len(x)), target - offset)
        read = new @ x.T @ weights + offset
        found.append(float(((read * wanted[list(test)]).sum(axis=1) > 0).mean()))
    return np.array(found)


def directions(base: Anatomy, capability: EncodedCapability) -> FloatArray:
    """The base's unembedding of each pair's answer less that of its distractor (first tokens),
    [pair, d_model].

    Raises:
        MeasurementError: a pair has no distractor.
    """
    weight = base.unembedding.weight
    assert isinstance(weight, torch.Tensor)
    weight, rows = weight.detach(), []
    for pair in capability.encoded.pairs:
        if not pair.distractor:
            raise MeasurementError("a probe needs pairs with a distractor each")
        rows.append((weight[pair.answer[0]] - weight[pair.distractor[0]]).double().cpu().numpy())
    return np.stack(rows)


def _parts(task: str, tokenizer: object, seed: int) -> tuple[EncodedCapability, ...]:
    """Pairs to train on, held out, and probed: disjoint."""
    sizes = ROWS, HELD_OUT, PROBED
    drawn = Capability(task, "logit_diff", task=task, count=sum(sizes), seed=seed)
    pairs = [one.pair for one in drawn.encoded(tokenizer).encoded.pairs]
    random.Random(seed).shuffle(pairs)
    parts, at = [], 0
    for size in sizes:
        chosen = replace(drawn, task=None, pairs=tuple(pairs[at : at + size]))
        parts.append(chosen.encoded(tokenizer))
        at += size
    return tuple(parts)


def _carry_out(where: dict[str, str], task: str, rate: float, at: Sequence[int], say: Say) -> None:
    specs = {role: resolve(given, role) for role, given in where.items()}
    tokenizer = load_tokenizer(specs["base"])
    rows, held, probed = _parts(task, tokenizer, 0)
    half = probed.n_pairs // 2
    halves = range(half), range(half, probed.n_pairs)
    probes, levels = {}, {}
    wanted = directions(locate(load_model(specs["base"])), probed)
    for role, spec in specs.items():
        anatomy = locate(load_model(spec))
        levels[role] = level(anatomy, held)
        say(f"{role}: {levels[role]}")
        probes[role] = probe(
            capture_streams(anatomy, passages_of(probed)).residual, wanted, *halves
        )
    print(f"{task}: mean readout, accuracy on {held.n_pairs} held-out pairs")
    for role, found in levels.items():
        print(f"  {role:28} {found.readout:8.3f} {found.accuracy:6.3f}")
    lost = levels["base"].readout - levels["tuned"].readout
    real = list(passages_of(rows))
    for what, given in (("rows", real), ("rows, answers dealt anew", dealt_anew(real))):
        anatomy = locate(load_model(specs["tuned"]))
        for done in relearn(anatomy, given, rate):
            if done in at:
                found = level(anatomy, held)
                back = (found.readout - levels["tuned"].readout) / lost
                what_done = f"{len(given)} {what}, {done} passes"
                print(f"  {what_done:36} {found.readout:8.3f} {found.accuracy:6.3f} {back:+.2f}")
            if done >= max(at):
                break
    print(f"probe, share right on {probed.n_pairs - half} pairs, after each layer")
    for role, values in probes.items():
        print(f"  {role:8}" + " ".join(f"{value:.2f}" for value in values))


def main() -> int:
    """Say how much of one task comes back."""
    parser = ArgumentParser(prog="python -m examples.studies.recovery")
    parser.add_argument("checkpoints", nargs=2, metavar="ROLE=CHECKPOINT", help="base= and tuned=")
    parser.add_argument("--task", default="induction", help="what was lost (induction)")
    parser.add_argument("--rate", type=float, default=1e-4, help="of AdamW (1e-4)")
    parser.add_argument("--passes", default="1,3,10", help="after which to measure (1,3,10)")
    given = parser.parse_args()
    at = [int(one) for one in given.passes.split(",")]

    def run(say: Say) -> None:
        where = dict(one.split("=", 1) for one in given.checkpoints)
        if where.keys() != {"base", "tuned"}:
            raise SpecificationError("give base=CHECKPOINT tuned=CHECKPOINT")
        _carry_out(
            {role: where[role] for role in ("base", "tuned")}, given.task, given.rate, at, say
        )

    return carry_out(run)


if __name__ == "__main__":
    sys.exit(main())
