"""`python -m examples.studies.drift BASE CHECKPOINT... --prior TASKS [--new FILE]`: prints tables
of docs/drift.md: singular parts given back to the last checkpoint, the run's rotation beside its
losses, and task similarity beside what the last checkpoint forgot."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from examples.studies.drift import given_back, similarity, trajectory
from examples.studies.drift.scored import Score, from_file, from_generator, science
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("run", nargs="+", help="checkpoints, in the order of the run")
    parser.add_argument("--prior", required=True, help="tasks, with commas between")
    parser.add_argument("--new", type=Path, help="prompts of the new task; default: tiny's science")
    parser.add_argument("--count", type=int, default=64, help="prompts a task")
    parser.add_argument("--bands", type=int, default=4, help="runs of neighbouring layers")
    given = parser.parse_args()
    specs = [resolve(given.base, "base"), resolve(given.run[-1], "tuned")]
    with ModelPair(specs) as pair:
        prior = [from_generator(one, pair.base, given.count, 11) for one in given.prior.split(",")]
        new = (
            science(pair.base, given.count)
            if given.new is None
            else from_file(given.new, pair.base)
        )
        tasks = (*prior, new)
        names = [one.name for one in tasks]
        _table(
            ("given back", "layers", "moved", *names),
            [
                (one.what, _span(one.layers), f"{one.moved:.2f}", *map(_score, one.scores))
                for one in given_back.given_back(pair, tasks, bands=given.bands)
            ],
        )
        likeness = similarity.likeness(pair, prior, new)
    _table(
        ("task", "gradient cosine", "shared variance", "base", "tuned", "lost, nats"),
        [
            (one.task, f"{one.gradient:.3f}", f"{one.stream:.2f}", _score(one.base),
             _score(one.tuned), f"{one.lost:.2f}")
            for one in likeness
        ],
    )  # fmt: skip
    if len(likeness) > 2:
        print(
            "rank correlation with what was lost:",
            *_rounded(similarity.rank_correlations(likeness)),
        )
    steps = trajectory.trajectory(specs[0], given.run, tasks)
    _table(
        ("checkpoint", "angle", "drift", *names),
        [
            (Path(one.name).name, f"{one.angle:.4f}", f"{one.drift:.4f}", *map(_score, one.scores))
            for one in steps
        ],
    )
    if len(steps) > 2:
        for name, found in trajectory.rank_correlations(steps).items():
            print(f"rank correlation of {name} with loss:", *_rounded(found))


def _span(layers: tuple[int, int] | None) -> str:
    return "" if layers is None else f"{layers[0]} to {layers[1]}"


def _score(one: Score) -> str:
    return f"{one.right:.2f} ({one.loss:.2f})"


def _rounded(values: Sequence[float]) -> list[str]:
    return [f"{one:.2f}" for one in values]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [header, ["---"] * len(header), *rows]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n", flush=True)


if __name__ == "__main__":
    main()
