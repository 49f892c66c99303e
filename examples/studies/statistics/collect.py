"""The command `python -m examples.studies.statistics.collect BASE COPY...`: what changed copies of
a model do to a circuit and to the readout, pair by pair, in a file for the study's `--real`.

The file holds float64 arrays: `base` [n], F of the base; `importance` [1 + heads, n], the circuit's
first; by copy `damage_NAME` [1 + heads, n] and `readout_NAME` [n]; `templates` [n]; `heads`,
`task` and `model` as text. A head given to `--weaken` makes a copy of its own, whose slice of the
output projection is a quarter of the base's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import forgetguard as fg
from examples.studies.command import Say, carry_out
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member, parse_member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.gate.schema import load_gate_file
from forgetguard.measures.vulnerability import ForeignHeads, capture_heads, each_and_all, patched

LEFT = 0.25  # of a weakened head's slice


def main(arguments: Sequence[str] | None = None) -> int:
    """Read copies of a model and keep what they cost, pair by pair."""
    asked = _options().parse_args(arguments)
    return carry_out(lambda say: _run(asked, say))


def _run(asked: argparse.Namespace, say: Say) -> None:
    spec = load_gate_file(asked.circuit)
    members = sorted(spec.members)
    weak = [one for one in map(parse_member, asked.weaken) if isinstance(one, Head)]
    foreign, encoded = {}, None
    for copy in asked.copies:
        pair = fg.load(base=str(asked.base), tuned=str(copy), device="cpu")
        encoded = encoded or _encoded(spec.capability, asked, pair)
        with pair.tuned.open() as model:
            foreign[copy.name] = capture_heads(locate(model), encoded, members)
        say(f"{copy.name} read")
    pair = fg.load(base=str(asked.base), tuned=str(asked.copies[0]), device="cpu")
    encoded = encoded or _encoded(spec.capability, asked, pair)
    with pair.base.open() as model:
        anatomy = locate(model)
        foreign |= {f"weak {one}": _weakened(anatomy, encoded, members, one) for one in weak}
        say("patching")
        arrays = _arrays(anatomy, encoded, members, foreign)
    np.savez(
        asked.out,
        allow_pickle=False,
        **arrays,
        heads=np.array([str(one) for one in members]),
        templates=np.array([one.pair.template for one in encoded.encoded.pairs]),
        task=np.array(spec.capability),
        model=np.array(asked.name or asked.base.name),
    )
    say(f"written: {asked.out}")


def _encoded(task: str, asked: argparse.Namespace, pair: Any) -> EncodedCapability:
    found: EncodedCapability = fg.capability(task, pairs=asked.pairs, seed=asked.seed).encoded(
        pair.base.tokenizer
    )
    return found


def _weakened(
    anatomy: Anatomy, encoded: EncodedCapability, members: Sequence[Member], head: Head
) -> ForeignHeads:
    """What the base writes with `head` at a quarter; the base is put right again."""
    site = anatomy.site(head.layer)
    weight, columns = site.output_projection.get_parameter("weight"), site.slice(head)
    kept = weight.detach()[:, columns].clone()
    with torch.no_grad():
        try:
            weight[:, columns] *= LEFT
            return capture_heads(anatomy, encoded, members)
        finally:
            weight[:, columns] = kept


def _arrays(
    anatomy: Anatomy,
    encoded: EncodedCapability,
    members: Sequence[Member],
    foreign: Mapping[str, ForeignHeads],
) -> dict[str, Any]:
    found = patched(anatomy, encoded, each_and_all(members), foreign)

    def rows(drops: Any) -> Any:
        return np.stack([drops.circuit, *(drops.heads[one] for one in members)])

    arrays = {"base": found.base.readout, "importance": rows(found.drops(members))}
    for name, other in foreign.items():
        arrays |= {
            f"damage_{name}": rows(found.drops(members, name)),
            f"readout_{name}": other.behaviour.readout,
        }
    return arrays


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.statistics.collect", description=main.__doc__
    )
    parser.add_argument("base", type=Path, help="a model folder")
    parser.add_argument("copies", type=Path, nargs="+", help="changed copies of it")
    parser.add_argument("--circuit", type=Path, required=True, help="a circuit file: its heads")
    parser.add_argument("--weaken", nargs="*", default=[], metavar="L0H0", help="heads, one a copy")
    parser.add_argument("--pairs", type=int, default=384, help="prompt pairs (384)")
    parser.add_argument("--seed", type=int, default=11, help="of the pairs (11)")
    parser.add_argument("--name", default="", help="the model's, in tables (its folder's)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    return parser


if __name__ == "__main__":
    sys.exit(main())
