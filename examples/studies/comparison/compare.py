"""Compares base, tuned and reference on one capability: each is opened once, one after the other.

Every number is defined in docs/comparison.md, with whose it is: the paper's (arXiv 2605.28860) or
ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from examples.studies.comparison.derive import derive
from examples.studies.comparison.mask_shift import DELTA
from examples.studies.comparison.reading import (
    ABLATION,
    Masking,
    Prompts,
    Reading,
    Stores,
    circuit_of,
    cut_vocabulary,
    read_model,
)
from examples.studies.comparison.result import Comparison, Split
from examples.studies.comparison.retention import LEAST_STABILITY
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.cache_folder import is_off
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.encoding import check_same_ids
from forgetguard.capabilities.variants import exchange_answers, halves
from forgetguard.checkpoints.adapters import full_checkpoint_under
from forgetguard.checkpoints.fingerprint import fingerprint
from forgetguard.checkpoints.local import localise
from forgetguard.discovery.methods import method
from forgetguard.discovery.ranking import Method, Progress
from forgetguard.discovery.store import Store, identity
from forgetguard.errors import SpecificationError
from forgetguard.measures.interventions import Saved
from forgetguard.patching.budget import memory_errors

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import Checkpoint, ModelPair

METHOD = "binary_masking"
SEEDS = (0, 1, 2)
PAIRS = 128  # in all: half of them to learn masks on, half held out


def compare(
    pair: ModelPair,
    capability: Capability,
    *,
    seeds: Sequence[int] = SEEDS,
    settings: Mapping[str, Any] | None = None,
    delta: float = DELTA,
    least_stability: float = LEAST_STABILITY,
    keep: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """Masks, circuits and what they say, for every model of the pair.

    The pairs are split into two halves, the same for every model and seed. Masks are learned on
    the first, once a seed; faithfulness, transfer and necessity are read on the second. The base's
    masks are learned on the second half too: the split-half ceiling, and what another model
    reaches of it, are agreement with these, and they serve nothing else.

    Args:
        capability: every pair needs a distractor. 128 pairs or more: masks see half of them.
        seeds: of the mask's learning; one alone leaves retention without evidence, and abstains.
        settings: of binary masking, by name; by default its own.
        delta: how far a mask must fall for its head to be vulnerable; in [0, 1).
        least_stability: what the base must agree with itself, corrected for chance, before
            retention counts as evidence; in [0, 1].
        keep: keep finished work in the cache, and take up what is there: an interrupted comparison
            goes on, and the base's part serves every model compared with it.

    Raises:
        SpecificationError: no seeds, one given twice, or an unknown setting.
        CapabilityError: pairs without a distractor, too few pairs, or tokenizers that differ.
        BaseCannotError: the base cannot do the capability. (A tuned model that cannot is a
            finding: its circuit is None, with the reason.)
        ForgetguardError: a model cannot be measured.
    """
    keep = keep and not is_off()
    masking = _masking(seeds, settings)
    _check_range(delta, least_stability)
    encoded = _encoded(pair, capability)
    learned_on, held_out = halves(encoded)
    exchange_answers(encoded)  # says now, before anything is loaded, that distractors are missing
    prompts = Prompts(encoded, learned_on, held_out)
    vocabulary = pair.vocabulary
    readings: list[Reading] = []
    heads: set[tuple[object, ...]] = set()
    for checkpoint in pair.checkpoints:
        where = f"comparing {capability.name} in {checkpoint.role}"
        with memory_errors(where), checkpoint.open() as model:
            anatomy = locate(model)
            _check_heads(heads, anatomy, checkpoint.role)
            cut = _cut(anatomy, vocabulary)
            with cut_vocabulary(anatomy, cut):
                readings.append(
                    read_model(
                        anatomy,
                        checkpoint.role,
                        checkpoint.spec.given,
                        prompts,
                        masking,
                        [circuit_of(mask) for mask in readings[0].masks] if readings else [],
                        _stores(pair, checkpoint, anatomy, cut) if keep else _nowhere,
                        progress,
                    )
                )
    return _comparison(encoded, prompts, masking, readings, delta, least_stability)


def _comparison(
    encoded: EncodedCapability,
    prompts: Prompts,
    masking: Masking,
    readings: Sequence[Reading],
    delta: float,
    least_stability: float,
) -> Comparison:
    derived = derive(readings, delta=delta, least_stability=least_stability)
    return Comparison(
        capability=encoded.capability.name,
        readout=encoded.capability.readout,
        columns=derived.columns,
        heads=len(readings[0].roles.members),
        split=Split(
            prompts.learned_on.n_pairs, prompts.held_out.n_pairs, encoded.encoded.n_dropped
        ),
        seeds=masking.seeds,
        settings=masking.settings,
        ablation=ABLATION,
        delta=delta,
        least_stability=least_stability,
        ceiling=derived.ceiling,
        vulnerable=derived.vulnerable,
        vulnerable_undefined=derived.vulnerable_undefined,
        against=derived.against,
        notes=_notes(encoded),
    )


def _masking(seeds: Sequence[int], settings: Mapping[str, Any] | None) -> Masking:
    chosen = tuple(seeds)
    if not chosen or len(set(chosen)) < len(chosen):
        raise SpecificationError(
            f"seeds {', '.join(map(str, chosen)) or '(none)'}: give one or more, each once"
        )
    found = method(METHOD, settings)
    return Masking(found, {"method": METHOD, **_all_settings(found)}, chosen)


def _all_settings(found: Method) -> dict[str, Any]:
    """The settings that a method runs with, its own defaults too: a changed default must not be
    served from the cache."""
    common = set(inspect.signature(Method.__call__).parameters)
    return {
        name: parameter.default
        for name, parameter in inspect.signature(found).parameters.items()
        if name not in common and parameter.default is not inspect.Parameter.empty
    }


def _check_range(delta: float, least_stability: float) -> None:
    if not 0 <= delta < 1:
        raise SpecificationError(f"delta is {delta:g}: give a fall of a mask, from 0 to below 1")
    if not 0 <= least_stability <= 1:
        raise SpecificationError(
            f"least_stability is {least_stability:g}: give an agreement, from 0 to 1"
        )


def _encoded(pair: ModelPair, capability: Capability) -> EncodedCapability:
    """The pairs in the base's ids, which must be the others' too."""
    encoded = capability.encoded(pair.base.tokenizer)
    for checkpoint in pair.checkpoints[1:]:
        theirs = capability.encoded(checkpoint.tokenizer)
        check_same_ids(encoded.encoded, theirs.encoded.pairs, str(checkpoint.spec))
    if len(pair.checkpoints) < 2:
        raise SpecificationError("there is nothing to compare the base with: give tuned=...")
    return encoded


def _check_heads(seen: set[tuple[object, ...]], anatomy: Anatomy, role: str) -> None:
    seen.add(anatomy.heads)
    if len(seen) > 1:
        raise SpecificationError(
            f"{role} has other attention heads ({len(anatomy.heads)}) than the base: masks of two "
            "architectures cannot be compared"
        )


def _cut(anatomy: Anatomy, vocabulary: int | None) -> int | None:
    """How many token ids this model keeps, where it has more than the models share."""
    config = anatomy.model.config.get_text_config()  # type: ignore[operator, union-attr]
    size = getattr(config, "vocab_size", None)
    return vocabulary if vocabulary is not None and size != vocabulary else None


def _stores(
    pair: ModelPair, checkpoint: Checkpoint, anatomy: Anatomy, vocabulary: int | None
) -> Stores:
    """Where work on this model is kept: named after all that its numbers depend on."""
    parameter = next(anatomy.model.parameters())
    own = checkpoint.fingerprint
    origin = {
        "weights": own.weights,
        "config": own.config,
        "under": _under_adapter(pair, checkpoint),
        "vocabulary": str(vocabulary),
        "dtype": str(parameter.dtype),
        "device": parameter.device.type,
    }

    def open_store(pairs: EncodedCapability, settings: Mapping[str, Any]) -> Saved:
        return Store.open(identity(origin, pairs, anatomy.heads, settings))

    return open_store


def _under_adapter(pair: ModelPair, checkpoint: Checkpoint) -> str:
    """The weights that an adapter was put on; its own fingerprint is of the adapter alone."""
    spec = localise(checkpoint.spec, pair.options)
    if spec.kind != "adapter":
        return ""
    full = full_checkpoint_under(spec, localise(pair.base.spec, pair.options))
    merged = "merged " if pair.options.merge_adapter else ""
    return merged + fingerprint(full, pair.options).weights


def _nowhere(_: EncodedCapability, __: Mapping[str, Any]) -> None:
    return None


def _notes(encoded: EncodedCapability) -> tuple[str, ...]:
    found = encoded.encoded
    notes = [f"dropped {n}: {why}" for why, n in sorted(found.dropped.items())]
    if found.asked is not None and len(found.pairs) < found.asked:
        notes.append(f"only {len(found.pairs)} of the {found.asked} pairs asked for exist")
    return tuple(notes)
