"""How far fine-tuning moved the weights: what became of each of them, and Frobenius norms."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from forgetguard.checkpoints.adapters import PLAIN_INITS, full_checkpoint_under, lora_part
from forgetguard.checkpoints.described import Described, describe
from forgetguard.checkpoints.files import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS, TensorEntry
from forgetguard.checkpoints.fingerprint import same_tensors
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.sameness import is_second_copy
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.errors import CheckpointError, MeasurementError, some

_BLOCK = 1 << 22  # entries read at once: 32 MB in float64, of each side
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
# Constants that older versions of transformers saved with the weights.
_CONSTANTS = re.compile(r"(rotary_emb\.inv_freq|\.attn\.(masked_)?bias|attention\.(masked_)?bias)$")


# --- What the two checkpoints hold under one name ------------------------------------------------


@dataclass(frozen=True, slots=True)
class LowRank:
    """A LoRA update, `scale * B A`; `flipped` where the weight is its transpose. `names` are those
    of A [rank, in] and B [out, rank] in the adapter's file."""

    a: TensorEntry
    b: TensorEntry
    names: tuple[str, str]
    scale: float
    flipped: bool


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of one weight: the base's and the tuned, each in the number format it is stored in
    (tuned is None where an adapter makes it), and tuned - base in float64."""

    base: Float[Tensor, "row *rest"]
    tuned: Float[Tensor, "row *rest"] | None
    change: Float[Tensor, "row *rest"]


@dataclass(frozen=True, slots=True)
class WeightPair:
    """One weight of the base, and what became of it. Nothing is read before `blocks`.

    Attributes:
        name: in the base's files.
        shape: what is compared; fewer rows than a side has where its vocabulary is larger.
        base: where the base's tensor lies.
        tuned: where the tuned one lies (`tuned_name`), or the LoRA update on the base's, or None
            where an adapter leaves it alone.
        base_name: the base's tensor, where it has another name (a tied output embedding).
    """

    name: str
    shape: tuple[int, ...]
    base: TensorEntry
    tuned: TensorEntry | LowRank | None
    tuned_name: str = ""
    base_name: str = ""

    @property
    def kind(self) -> str:
        """The name without what tells layers (and experts) apart: `self_attn.q_proj`, `norm`."""
        parts = self.name.removesuffix(".weight").split(".")
        numbers = [index for index, part in enumerate(parts) if part.isdigit()]
        kept = parts[numbers[0] + 1 :] if numbers else parts[-1:]
        return ".".join(part for part in kept if not part.isdigit())

    def blocks(self, entries: int = _BLOCK) -> Iterator[Block]:
        """Read both sides, about `entries` numbers at a time, row by row.

        Raises:
            CheckpointError: a tensor of an unknown number format, or a file that changed.
        """
        rows = max(1, entries // max(1, math.prod(self.shape[1:])))
        total = self.shape[0] if self.shape else 1
        with ExitStack() as stack:
            read = _reader(stack, self.base, self.base_name or self.name)
            tuned = self._tuned_reader(stack)
            for start in range(0, total, rows):
                where = slice(start, min(start + rows, total))
                base = read(where)
                yield Block(base, *tuned(where, base))

    def _tuned_reader(
        self, stack: ExitStack
    ) -> Callable[[slice, Tensor], tuple[Tensor | None, Tensor]]:
        """From some rows of the base to the tuned ones, and tuned - base."""
        tuned = self.tuned
        if tuned is None:
            return lambda where, base: (None, torch.zeros_like(base, dtype=torch.float64))
        if isinstance(tuned, LowRank):
            left, right = _factors(stack, tuned)
            return lambda where, base: (None, left[where] @ right)
        read = _reader(stack, tuned, self.tuned_name)
        return lambda where, base: (there := read(where), there.double() - base.double())


def weight_pairs(
    base: CheckpointSpec,
    tuned: CheckpointSpec,
    options: LoadOptions | None = None,
    *,
    untied: bool = False,
) -> tuple[WeightPair, ...]:
    """Match the weights of two checkpoints by name, from their files' headers.

    A second copy of a tied embedding, integers and saved constants are left out. A LoRA adapter is
    taken as a change of the base. `untied`: an output embedding that only one of the two has of its
    own is matched with the other's input embedding.

    Raises:
        CheckpointError: pickled weights, names or shapes that do not match, or an adapter that is
            not plain LoRA.
    """
    options = options or LoadOptions()
    ours = _described(localise(base, options), options)
    theirs = _described(localise(tuned, options), options)
    if ours.is_adapter:
        if not theirs.is_adapter:
            raise CheckpointError(
                f"{base} is an adapter and {tuned} a full checkpoint: give the adapter's own base, "
                "or merge it (merge_and_unload, then save_pretrained)"
            )
        raise CheckpointError(
            f"{base} and {tuned} are both adapters: give {full_checkpoint_under(tuned, base)}, the "
            "checkpoint under them, as base"
        )
    if theirs.is_adapter:
        return _adapted(ours, theirs)
    return _matched(ours, theirs, untied=untied)


def _described(spec: CheckpointSpec, options: LoadOptions) -> Described:
    found = describe(spec, options)
    if found.weights.pickled:
        raise CheckpointError(
            f"{spec}: its weights are pickled and cannot be read one by one: save it again with "
            "save_pretrained(..., safe_serialization=True)"
        )
    return found


def _matched(base: Described, tuned: Described, *, untied: bool) -> tuple[WeightPair, ...]:
    ours, theirs = _weights(base.tensors), _weights(tuned.tensors)
    for name in _tied(ours, theirs):
        ours.pop(name, None)
        theirs.pop(name, None)
    read_as: dict[str, str] = {}  # of an output embedding that one side lacks, its input embedding
    for name in ours.keys() ^ theirs.keys() if untied else ():
        side = theirs if name in ours else ours
        tied = next((one for one in side if one.endswith(INPUT_EMBEDDINGS)), None)
        if name.endswith(OUTPUT_EMBEDDINGS) and name.endswith(".weight") and tied is not None:
            side[name], read_as[name] = side[tied], tied
    if ours.keys() != theirs.keys():
        raise CheckpointError(
            f"{tuned.spec} and {base.spec} do not hold the same weights: "
            f"{_only(base.spec, ours.keys() - theirs)}; {_only(tuned.spec, theirs.keys() - ours)}. "
            "Compare checkpoints that the same class saved with save_pretrained"
        )
    return tuple(
        WeightPair(
            name,
            _common_rows(name, entry, theirs[name], base.spec, tuned.spec),
            entry,
            theirs[name],
            name if name in tuned.tensors else read_as[name],
            name if name in base.tensors else read_as[name],
        )
        for name, entry in sorted(ours.items())
    )


def _weights(tensors: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    return {
        name: entry
        for name, entry in tensors.items()
        if entry.dtype in _FLOATS and not _CONSTANTS.search(name)
    }


def _tied(*sides: Mapping[str, TensorEntry]) -> set[str]:
    """Names of output embeddings that are, on each side that has them, a copy of its input
    embedding. Told by their bytes: configurations leave the setting out where it is the default."""
    names = {name for side in sides for name in side if name.endswith(OUTPUT_EMBEDDINGS)}
    return {
        name
        for name in names
        if all(name not in side or is_second_copy(name, side) for side in sides)
    }


def _common_rows(
    name: str, ours: TensorEntry, theirs: TensorEntry, base: CheckpointSpec, tuned: CheckpointSpec
) -> tuple[int, ...]:
    """The shape, without the rows that a larger vocabulary added."""
    if ours.shape == theirs.shape:
        return ours.shape
    embeds = name.endswith((*INPUT_EMBEDDINGS, *OUTPUT_EMBEDDINGS))
    if embeds and ours.shape[1:] == theirs.shape[1:]:
        return (min(ours.shape[0], theirs.shape[0]), *ours.shape[1:])
    raise CheckpointError(
        f"{tuned} is not a fine-tune of {base}: tensor {name} has shape {list(theirs.shape)} "
        f"against {list(ours.shape)}. Give checkpoints of the same architecture and size"
    )


def _only(spec: CheckpointSpec, names: Collection[str]) -> str:
    return f"only {spec} has {some(sorted(names))}"


# --- LoRA ----------------------------------------------------------------------------------------


def _adapted(base: Described, adapter: Described) -> tuple[WeightPair, ...]:
    _refuse_not_plain(adapter)
    ours = _weights(base.tensors)
    for name in _tied(ours):
        ours.pop(name)
    low_rank, replaced = _parts(adapter)
    changes: dict[str, tuple[TensorEntry | LowRank, str]] = {}
    for module, halves in low_rank.items():
        name = _place(f"{module}.weight", ours, base, adapter)
        changes[name] = (_update(adapter, base, module, halves, ours[name]), "")
    for saved, entry in replaced.items():
        plain = lora_part(saved)[0].replace(".base_layer.", ".")
        name = _place(plain, ours, base, adapter)
        if name in changes and same_tensors({"": entry}, {"": ours[name]}):
            continue  # peft saves the embedding itself beside an update of it
        if name in changes or entry.shape != ours[name].shape:
            raise _not_plain(adapter, f"it brings a {name} of its own, resized or updated again")
        changes[name] = (entry, saved)
    return tuple(
        WeightPair(name, entry.shape, entry, *changes.get(name, (None, "")))
        for name, entry in sorted(ours.items())
    )


def _refuse_not_plain(adapter: Described) -> None:
    config = adapter.config
    if str(config.get("peft_type")).upper() != "LORA":
        raise _not_plain(adapter, f"it is of type {config.get('peft_type')}")
    for setting in ("use_dora", "use_qalora", "use_bdlora", "arrow_config", "target_parameters"):
        if config.get(setting):
            raise _not_plain(adapter, f"it sets {setting}")
    start = config.get("init_lora_weights")
    if start not in PLAIN_INITS:
        raise _not_plain(adapter, f"its start {start!r} changed the base's weights too")


def _parts(
    adapter: Described,
) -> tuple[dict[str, dict[str, tuple[str, TensorEntry]]], dict[str, TensorEntry]]:
    """The halves A and B of each module's update, and the tensors that are weights themselves."""
    low_rank: dict[str, dict[str, tuple[str, TensorEntry]]] = {}
    replaced: dict[str, TensorEntry] = {}
    for name, entry in adapter.tensors.items():
        module, part = lora_part(name)
        if part is None:
            replaced[name] = entry
        else:
            low_rank.setdefault(module, {})[part] = (name, entry)
    return low_rank, replaced


def _place(
    wanted: str, ours: Mapping[str, TensorEntry], base: Described, adapter: Described
) -> str:
    """The base's tensor of that name; the prefix may differ, as by the class that saved it."""
    if wanted in ours:
        return wanted
    near = [name for name in ours if wanted.endswith(f".{name}") or name.endswith(f".{wanted}")]
    if len(near) == 1:
        return near[0]
    raise CheckpointError(
        f"{adapter.spec} changes {wanted}, which is not among the weights in the files of "
        f"{base.spec}: give the base it was trained on, or merge it into a full checkpoint "
        "(merge_and_unload, then save_pretrained) and give that"
    )


def _update(
    adapter: Described,
    base: Described,
    module: str,
    halves: Mapping[str, tuple[str, TensorEntry]],
    weight: TensorEntry,
) -> LowRank:
    is_table = "lora_embedding_A" in halves
    parts = [halves.get(f"lora_{'embedding_' * is_table}{part}") for part in "AB"]
    if None in parts or len(halves) != 2:
        raise _not_plain(adapter, f"{module} does not have one A and one B")
    (a_name, a), (b_name, b) = (part for part in parts if part is not None)
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise _not_plain(adapter, f"A and B of {module} are {a.shape} and {b.shape}")
    flipped = is_table or bool(adapter.config.get("fan_in_fan_out"))
    made = (b.shape[0], a.shape[1])
    if made != made[::-1]:  # where it can be told, the shape knows better than the setting
        flipped = weight.shape == made[::-1]
    if weight.shape != (made[::-1] if flipped else made):
        raise CheckpointError(
            f"{adapter.spec} does not fit {base.spec}: its update of {module} is {list(made)}, the "
            f"weight {list(weight.shape)}. Give the base it was trained on"
        )
    return LowRank(a, b, (a_name, b_name), _scale(adapter.config, module), flipped)


def _scale(config: Mapping[str, Any], module: str) -> float:
    """alpha / rank, or alpha / sqrt(rank) with rank-stabilised LoRA, as peft reads its settings."""
    from peft.utils.other import get_pattern_key  # here, because peft takes seconds to import

    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    rank = float(ranks.get(get_pattern_key(tuple(ranks), module), config["r"]))
    alpha = float(alphas.get(get_pattern_key(tuple(alphas), module), config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _factors(stack: ExitStack, update: LowRank) -> tuple[Tensor, Tensor]:
    """Left [row, rank] and right [rank, column], float64, whose product is the update."""
    a, b = (
        _reader(stack, entry, name)(slice(None)).double()
        for entry, name in zip((update.a, update.b), update.names, strict=True)
    )
    b = b * update.scale
    return (a.T, b.T) if update.flipped else (b, a)


def _not_plain(adapter: Described, why: str) -> CheckpointError:
    return CheckpointError(
        f"{adapter.spec} is not a plain LoRA adapter: {why}. Merge it into a full checkpoint "
        "(merge_and_unload, then save_pretrained) and give that"
    )


# --- Reading -------------------------------------------------------------------------------------


def _reader(stack: ExitStack, entry: TensorEntry, name: str) -> Callable[[slice], Tensor]:
    """Reads rows of one tensor in its own number format; files are mapped, not loaded."""
    try:
        opened = stack.enter_context(safe_open(entry.file, framework="pt"))
        part = opened.get_slice(name)
    except Exception as error:  # safetensors raises its own kinds and OSError
        raise CheckpointError(
            f"{entry.file}: {name} cannot be read ({error}): copy the checkpoint again"
        ) from error
    if not entry.shape:
        whole: Tensor = opened.get_tensor(name).reshape(1)
        return lambda where: whole[where]

    def read(where: slice) -> Tensor:
        rows: Tensor = part[where]
        return rows

    return read


# --- The measure ---------------------------------------------------------------------------------


def relative_drift(
    base: CheckpointSpec, tuned: CheckpointSpec, options: LoadOptions | None = None
) -> float:
    """Frobenius norm of tuned - base over that of the base, of all weights together, tied
    embeddings counted once; 0 where the base is all zero.

    Read from the safetensors files, a block of rows at a time; sums are taken in float64. No model
    is built; memory does not grow with the checkpoints.

    Raises:
        CheckpointError: the checkpoints' weights do not match, or cannot be read.
        MeasurementError: a weight is NaN or infinite.
    """
    found = [norms(pair) for pair in weight_pairs(base, tuned, options)]
    change, size = (math.hypot(*(one[at] for one in found)) for at in (0, 1))
    return change / size if size else 0.0


def norms(pair: WeightPair) -> tuple[float, float]:
    """Frobenius norms of tuned - base and of the base, of one weight.

    Raises:
        MeasurementError: they are not finite.
        CheckpointError: a file cannot be read.
    """
    parts = [
        [float(torch.linalg.vector_norm(one)) for one in (block.change, block.base.double())]
        for block in pair.blocks()
    ]
    change, size = (math.hypot(*(one[at] for one in parts)) for at in (0, 1))
    if not (math.isfinite(change) and math.isfinite(size)):
        raise MeasurementError(
            f"{pair.name} holds NaN or infinite values in one of the two checkpoints: save it "
            "again from a run that did not diverge"
        )
    return change, size
