"""Discovery on a checkpoint: opens it, checks that it can be measured, and keeps what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Member
from forgetguard.cache_folder import is_off
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.checkpoints.adapters import named_base
from forgetguard.checkpoints.fingerprint import fingerprint
from forgetguard.checkpoints.local import localise
from forgetguard.discovery.circuit import FAITHFUL, Found, find_circuit
from forgetguard.discovery.cost import exact_seconds
from forgetguard.discovery.methods import full_name, method
from forgetguard.discovery.ranking import Progress
from forgetguard.discovery.store import Store, identity
from forgetguard.errors import SpecificationError
from forgetguard.measures.ablation import ABLATIONS
from forgetguard.measures.behaviour import check_length
from forgetguard.patching.budget import memory_errors
from forgetguard.patching.selfcheck import check_patching, check_sums

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import Checkpoint

# Seconds (of processor time, on a CPU) that exact patching may take where nobody names a method.
EXACT_WITHIN = 300.0
# Of attribution patching where the search is coarse: about half of what it patches by default.
_COARSE_ATTRIBUTION = {"verify": 0.12, "audit": 8}


@dataclass(frozen=True, slots=True)
class Search:
    """How a circuit is looked for.

    method: a name of discovery/methods.py, or `auto`: exact activation patching where it is
        estimated to take at most `exact_within` seconds (discovery/cost.py), else attribution
        patching with its top verified exactly. What is kept of `auto` is taken up whichever it was.
    faithful: the faithfulness that the circuit must reach on held-out pairs, in (0, 1].
    ablation: what takes the rest of the model away.
    mlps: whether MLP layers may be members.
    seed: of whatever the method draws, and of the split of the pairs.
    settings: the method's own.
    coarse: cut the ranking at fewer sizes (discovery/curve.py), and where `auto` takes attribution
        patching, verify fewer members.

    Raises:
        SpecificationError: one of them is not possible.
    """

    method: str = "auto"
    faithful: float = FAITHFUL
    ablation: str = "counterfactual"
    mlps: bool = False
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    exact_within: float = EXACT_WITHIN
    coarse: bool = False

    def __post_init__(self) -> None:
        if self.method == "auto":
            if self.settings:
                raise SpecificationError(
                    f"settings {', '.join(self.settings)} belong to a method: name it"
                )
        else:
            method(self.method, self.settings)
        if not 0 < self.faithful <= 1:
            raise SpecificationError(
                f"faithful must be above 0 and at most 1, got {self.faithful:g}: it is the share "
                "of the whole effect that the circuit alone must have"
            )
        if self.ablation not in ABLATIONS:
            raise SpecificationError(
                f"unknown ablation {self.ablation!r}; there are {', '.join(ABLATIONS)}"
            )


def discover_on(
    base: Checkpoint,
    capability: Capability,
    search: Search,
    *,
    keep: bool = True,
    cache: Path | None = None,
    progress: Progress | None = None,
    checks: Callable[[Anatomy, EncodedCapability, tuple[Member, ...]], None] | None = None,
) -> Found:
    """Find the circuit of a capability in a checkpoint.

    Args:
        keep: keep finished work in `cache` (by default the user's), and take up what is there.
        checks: takes the place of `check`, where a model was checked already, say.

    Raises:
        ForgetguardError: the checkpoint cannot be measured, the prompts do not suit it, it cannot
            do the capability, or no circuit is faithful enough.
    """
    encoded = capability.encoded(base.tokenizer)
    with memory_errors(f"discovering {capability.name}"), base.open() as model:
        anatomy = locate(model)
        members = anatomy.members(mlps=search.mlps)
        keep = keep and not (cache is None and is_off())
        store = _store(base, anatomy, encoded, members, search, cache) if keep else None
        found = None if store is None else store.load_found()
        if found is None:
            (checks or check)(anatomy, encoded, members)
            name, why = _resolve(search, anatomy, encoded, members)
            coarse = search.coarse and why is not None and name == "attribution_patching"
            found = find_circuit(
                anatomy,
                encoded,
                method(name, _COARSE_ATTRIBUTION if coarse else search.settings),
                members,
                faithful=search.faithful,
                ablation=search.ablation,
                seed=search.seed,
                progress=progress,
                saved=store,
                coarse=search.coarse,
            )
            found = replace(found, chosen=why)
            if store is not None:
                store.save_found(found)
    return found


def check(anatomy: Anatomy, encoded: EncodedCapability, members: tuple[Member, ...]) -> None:
    """The self-checks that come before any number of a model (raises ForgetguardError)."""
    lengths = (batch.clean.shape[1] for batch in encoded.batches)
    check_length(anatomy, encoded.capability.name, lengths)
    batch = encoded.batches[0]
    check_sums(anatomy, batch.clean[:1])
    check_patching(
        anatomy,
        batch.clean[:2],
        batch.counterfactual[:2],
        batch.positions,
        members,
        start=batch.start,
    )


def _resolve(
    search: Search, anatomy: Anatomy, encoded: EncodedCapability, members: tuple[Member, ...]
) -> tuple[str, dict[str, float] | None]:
    """The method's full name, and for `auto` the numbers that chose it."""
    if search.method != "auto":
        return full_name(search.method), None
    seconds = exact_seconds(anatomy, encoded, members)
    name = "activation_patching" if seconds <= search.exact_within else "attribution_patching"
    return name, {"exact_seconds": seconds, "within": search.exact_within}


def _store(
    base: Checkpoint,
    anatomy: Anatomy,
    encoded: EncodedCapability,
    members: tuple[Member, ...],
    search: Search,
    cache: Path | None,
) -> Store:
    parameter = next(anatomy.model.parameters())
    origin = {
        "weights": base.fingerprint.weights,
        "config": base.fingerprint.config,
        "under": _under_adapter(base),
        "dtype": str(parameter.dtype),
        "device": parameter.device.type,
    }
    settings = {
        "method": search.method if search.method == "auto" else full_name(search.method),
        "cut": "coarse 3" if search.coarse else 2,  # by lower bounds
        "faithful": search.faithful,
        "ablation": search.ablation,
        "seed": search.seed,
        **{f"method.{key}": value for key, value in search.settings.items()},
    }
    return Store.open(identity(origin, encoded, members, settings), cache)


def _under_adapter(base: Checkpoint) -> str:
    """The weights that an adapter is put on; its own fingerprint is of the adapter alone."""
    local = localise(base.spec, base.options)
    if local.kind != "adapter":
        return ""
    return fingerprint(named_base(local), base.options).weights
