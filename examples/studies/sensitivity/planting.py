"""Known doses of damage to one head's weights: its slice of the output projection scaled, noised,
or edited along one direction.

The output slice is the one matrix that is a head's own in every architecture (keys and values are
shared where queries are grouped, and fused with the queries in some).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head
from forgetguard.calibration.copies import Change, matched, stored_dtype
from forgetguard.checkpoints.described import Described
from forgetguard.errors import CheckpointError, SpecificationError
from forgetguard.gate.resampling import derive_seed

Edit = Callable[[Float[Tensor, "row column"], float, torch.Generator], Tensor]


@dataclass(frozen=True, slots=True)
class OutputSlice:
    """Where a head's slice of the output projection lies in the files: `name` the tensor, [out, in]
    with the head's columns at `place`, or, `transposed` (Conv1D), [in, out] with its rows there."""

    name: str
    place: slice
    transposed: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """The slice itself, a view."""
        return tensor[self.place] if self.transposed else tensor[:, self.place]


def output_slice(anatomy: Anatomy, head: Head, files: Described) -> OutputSlice:
    """Find a head's slice of the output projection in the files of its checkpoint.

    Raises:
        AnatomyError: the head is not in the model.
        CheckpointError: the projection is no plain matrix, or the files name it otherwise.
    """
    anatomy.check([head])
    site = anatomy.site(head.layer)
    module = site.output_projection
    path = next(name for name, one in anatomy.model.named_modules() if one is module)
    wanted = f"{path}.weight"
    names = [
        name
        for name in files.tensors
        if name == wanted or wanted.endswith(f".{name}") or name.endswith(f".{wanted}")
    ]
    if len(names) != 1 or len(files.tensors[names[0]].shape) != 2:
        raise CheckpointError(
            f"{files.spec}: the output projection of {head}, {wanted}, is not one matrix of its "
            "files: plant a mixture instead (--plant mixture), which needs no files"
        )
    return OutputSlice(names[0], site.slice(head), isinstance(module, Conv1D))


def scaled(weight: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """W (1 - d): the head's contribution is that much weaker, at d = 1 gone."""
    return weight * (1 - dose)


def noised(weight: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """W + G, G Gaussian of d times the Frobenius norm of W. One direction for all doses."""
    drawn = torch.randn(weight.shape, generator=generator)
    return weight + matched(drawn, dose * float(torch.linalg.vector_norm(weight)))


def rank_one(weight: Tensor, dose: float, generator: torch.Generator) -> Tensor:
    """W + u v', random, of d times the Frobenius norm of W: as large as `noised`, all of it along
    one direction, as edits that write a fact into a model are."""
    left, right = (torch.randn(size, generator=generator) for size in weight.shape)
    return weight + matched(
        torch.outer(left, right), dose * float(torch.linalg.vector_norm(weight))
    )


MIXTURE = "mixture"  # of contributions, not of weights: mixture.py beside this
EDITS: Mapping[str, Edit] = {"scale": scaled, "noise": noised, "rank-one": rank_one}
PLANTS: Mapping[str, str] = {
    MIXTURE: "the head gives (1 - d) of its own contribution and d of the counterfactual's",
    "scale": "its slice of the output projection times 1 - d",
    "noise": "Gaussian noise of d times the slice's norm added",
    "rank-one": "a random rank-one matrix of d times the slice's norm added",
}


def edit(where: OutputSlice, plant: str, dose: float, seed: int = 0) -> dict[str, Change]:
    """The change of the checkpoint that plants `dose` of `plant` there. Doses of one seed lie on a
    ray: they are one direction at different lengths.

    Raises:
        SpecificationError: no such plant, or the dose is not from 0 to 1.
    """
    check_dose(dose)
    if plant not in EDITS:
        raise SpecificationError(f"unknown plant {plant!r}; there are {', '.join(PLANTS)}")

    def change(tensor: Tensor) -> Tensor:
        result = tensor.to(torch.float64, copy=True)
        generator = torch.Generator().manual_seed(
            derive_seed(seed, plant, where.name, str(where.place.start))
        )
        part = where.of(result)
        part.copy_(EDITS[plant](part.clone(), dose, generator))
        return result.to(stored_dtype(tensor))

    return {where.name: change}


def check_dose(dose: float) -> None:
    """Raises SpecificationError where a dose is not from 0 to 1."""
    if not 0 <= dose <= 1:
        raise SpecificationError(f"dose {dose:g} is not from 0 (nothing) to 1 (all of it)")
