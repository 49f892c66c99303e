"""Whether circuits suit each other, the base at hand and the models given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from forgetguard.anatomy.members import Mlp
from forgetguard.errors import SpecificationError
from forgetguard.gate.declaration import Fits, GateSpec
from forgetguard.measures.documents import EvalTasks
from forgetguard.measures.task_names import unknown_names

_OVER = {
    "reference": "a third checkpoint: give reference=...",
    "baseline": "a baseline: give --forgetguard-baseline PATH, and record it first from an "
    "accepted checkpoint with --forgetguard-update",
}


def check_names(specs: Iterable[GateSpec]) -> None:
    """Every circuit of one run must have a name of its own.

    Raises:
        SpecificationError: two have the same; the message names both files.
    """
    first: dict[str, GateSpec] = {}
    clashes = []
    for spec in specs:
        other = first.setdefault(spec.name, spec)
        if other is not spec:
            clashes.append(
                f"{spec.where(1)}: circuit {spec.name!r} has the name of the one in "
                f"{other.path or 'this run'}: give one of them another with name: ..."
            )
    if clashes:
        raise SpecificationError("\n".join(clashes))


def check_heads(spec: GateSpec, layers: int, heads_per_layer: int) -> None:
    """Every head of the circuit must exist in a base with that many layers and query heads.

    Raises:
        SpecificationError: some do not; one `file:line` each.
    """
    missing = []
    for position, head in enumerate(spec.members):
        if head.layer < layers and (isinstance(head, Mlp) or head.index < heads_per_layer):
            continue
        line = spec.member_lines[position] if position < len(spec.member_lines) else 0
        missing.append(
            f"{spec.where(line)}: circuit: {head} is not in this base: it has layers 0 to "
            f"{layers - 1} and heads 0 to {heads_per_layer - 1} in each: was the circuit found "
            "in another model?"
        )
    if missing:
        raise SpecificationError("\n".join(missing))


def check_fits(spec: GateSpec, config: Mapping[str, Any], weights: Callable[[], str]) -> None:
    """A circuit that says which base it was found in may gate no other.

    Args:
        config: the base's config.json.
        weights: gives the fingerprint of the base's weights; asked for only where it is needed.

    Raises:
        SpecificationError: its `fits` does not match, but for `alias`, which is a name only.
    """
    strange = None if spec.fits is None else _strange(spec.fits, config, weights)
    if strange is not None:
        name, wanted, found = strange
        raise SpecificationError(
            f"{spec.where(1)}: circuit {spec.name!r} is of another base: its fits: {name} is "
            f"{wanted}, this base's is {found}: find it again in this base (forgetguard "
            "discover), or take fits: out of the file to gate this base with it"
        )


def _strange(
    fits: Fits, config: Mapping[str, Any], weights: Callable[[], str | None]
) -> tuple[str, object, object] | None:
    """What a base has not as a circuit asks of it, but for the alias: the key, what is asked, what
    is there. A fingerprint reads every byte of the weights: only where all else fits."""
    architectures = config.get("architectures") or ()
    given = fits.architecture in architectures
    there: Mapping[str, Callable[[], object]] = {
        "architecture": lambda: fits.architecture if given else next(iter(architectures), None),
        "layers": lambda: config_size(config, "layers"),
        "heads": lambda: config_size(config, "heads"),
        "weights": weights,
    }
    for name, find in there.items():
        wanted = getattr(fits, name)
        if wanted is not None and (found := find()) != wanted:
            return name, wanted, found
    return None


def check_given(specs: Iterable[GateSpec], *, reference: bool, baseline: bool) -> None:
    """No limit may be over a reference, or over a baseline, that is not given.

    Raises:
        SpecificationError: some are; one `file:line` each.
    """
    given = {"": True, "reference": reference, "baseline": baseline}
    needy = [
        f"{spec.where(limit.line)}: limits.{limit.key} needs {_OVER[limit.over]}"
        for spec in specs
        for limit in spec.limits
        if not given[limit.over]
    ]
    if needy:
        raise SpecificationError("\n".join(needy))


def check_eval_tasks(specs: Iterable[GateSpec]) -> None:
    """Every task and metric that a file asks lm-eval for must be one that it may know.

    Raises:
        SpecificationError: some are not; one `file:line` each.
    """
    asked = {spec: spec.pairs for spec in specs if isinstance(spec.pairs, EvalTasks)}
    wrong = [
        f"{spec.where(tasks.line)}: lm_eval: {one}"
        for spec, tasks in asked.items()
        for one in unknown_names(tasks)
    ]
    if wrong:
        raise SpecificationError("\n".join(wrong))


_SIZES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
}


def config_size(config: Mapping[str, Any], what: str) -> int | None:
    """How many `layers`, or `heads` a layer, a config.json declares; None where it does not."""
    text_config = config.get("text_config")
    inner: Mapping[str, Any] = text_config if isinstance(text_config, Mapping) else {}
    values = [source[name] for source in (config, inner) for name in _SIZES[what] if name in source]
    return int(values[0]) if values and isinstance(values[0], int) else None


def fits_base(
    spec: GateSpec, config: Mapping[str, Any], weights: Callable[[], str | None], *, alias: str
) -> bool:
    """Whether a bundled circuit belongs to a base.

    All that its `fits` gives must match, and its heads must exist; `fits: any` fits every base. A
    circuit without `fits` does not say whose it is, so it belongs to no base by itself; what is not
    known does not match.

    Args:
        config, weights: as `check_fits`; the fingerprint may be None, not known.
        alias: the base as the user named it.
    """
    fits = spec.fits
    if fits is None or (fits.alias is not None and alias not in fits.alias):
        return False
    layers, heads = config_size(config, "layers"), config_size(config, "heads")
    inside = all(
        (layers is None or head.layer < layers)
        and (heads is None or isinstance(head, Mlp) or head.index < heads)
        for head in spec.members
    )
    return inside and _strange(fits, config, weights) is None
