"""The settings of one training run: which recipe, on what and how, read from YAML."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from forgetguard.anatomy.members import Head
from forgetguard.errors import SpecificationError
from forgetguard.gate import yaml_lines as lines
from forgetguard.gate.yaml_lines import Problems

SUPERVISED = ("sft", "sft-kl", "sft-replay", "sft-circuit", "sft-flow")
REINFORCED = ("rl", "sft-rl")
RECIPES = (*SUPERVISED, *REINFORCED)

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Several = Annotated[int, Field(ge=2)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]

# Settings that mean something to some recipes alone; every other one belongs to all.
OWN: Mapping[str, tuple[str, ...]] = {
    "start": ("sft-rl",),
    "batch": SUPERVISED,
    "kl_weight": ("sft-kl",),
    "kl_direction": ("sft-kl",),
    "replay_share": ("sft-replay",),
    "circuit_weight": ("sft-circuit",),
    "circuit": ("sft-circuit",),
    "flow_tau": ("sft-flow",),
    **dict.fromkeys(
        ("group", "iterations", "beta", "temperature", "completion_length", "prompts"), REINFORCED
    ),
}
# Required where they belong to the recipe at all.
_REQUIRED_OWN = (
    "start", "kl_weight", "replay_share", "circuit_weight", "circuit", "group",
    "completion_length", "prompts",
)  # fmt: skip
_CIRCUIT_FILES = (".circuit.yaml", ".circuit.yml")


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """A LoRA adapter: its rank, its alpha (the update is scaled by alpha / rank), and the names of
    the linear modules that get one."""

    rank: Count
    alpha: Count
    modules: Names


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """One training run, whole; two runs with equal settings, data and base end the same.

    Attributes:
        recipe: one of `RECIPES`.
        base: the checkpoint that is trained, and that regularisers and KL compare with: what
            `checkpoints.spec.resolve` takes. A full checkpoint.
        output: the folder of the run: its checkpoints, its losses and, in `final`, the result.
        steps: updates of the weights.
        learning_rate: its peak.
        seed: of data order, adapter initialisation and sampling.
        batch: rows an update, over all devices (supervised recipes; for the others it is
            `prompts` x `group`).
        micro_batch: rows a device takes at once; what is left of a batch is accumulated. None: all.
        warmup: updates over which the learning rate rises from 0.
        schedule: what it does then: `constant`, `linear` or `cosine` (both to 0).
        weight_decay: AdamW's.
        max_grad_norm: gradients are scaled down to this norm.
        max_length: most tokens of prompt and answer together.
        dtype: of computation. Trained weights are float32 always, so that small updates count;
            under `bfloat16` the frozen weights beneath an adapter are bfloat16.
        device: `cpu` or `cuda`; None: cuda where there is one.
        gradient_checkpointing: trade time for memory.
        adapter: None trains every weight.
        save_every: updates between checkpoints; a multiple of `log_every`.
        log_every: updates that one line of the loss log averages.
        start: for `sft-rl`, the SFT checkpoint where reinforcement starts.
        kl_weight, kl_direction: of the KL term; forward is KL(base || model), reverse
            KL(model || base).
        replay_share: the share of training rows that are replayed, in (0, 1).
        circuit_weight, circuit: of the circuit term, and the heads it holds, as `L2H1`.
        flow_tau: the temperature of the easy-sample weights, in nats; None: the median loss.
        group: completions a prompt.
        iterations: updates on each batch of completions (mu).
        beta: weight of the KL to the base within the reinforcement loss.
        temperature: of sampling.
        completion_length: most tokens of a completion.
        prompts: prompts an update.

    Raises:
        SpecificationError: a value that cannot be, or one that the recipe needs and that is None.
    """

    recipe: str
    base: str
    output: str
    steps: Count
    learning_rate: Positive
    seed: Natural = 0
    batch: Count = 32
    micro_batch: Count | None = None
    warmup: Natural = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    max_length: Several = 512
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "cuda"] | None = None
    gradient_checkpointing: bool = False
    adapter: AdapterSettings | None = None
    save_every: Count = 100
    log_every: Count = 10
    start: str | None = None
    kl_weight: Positive | None = None
    kl_direction: Literal["forward", "reverse"] = "forward"
    replay_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    circuit_weight: Positive | None = None
    circuit: Names | None = None
    flow_tau: Positive | None = None
    group: Several | None = None
    iterations: Count = 1
    beta: NotNegative = 0.0
    temperature: Positive = 1.0
    completion_length: Count | None = None
    prompts: Count | None = None

    def __post_init__(self) -> None:
        found = [f"{key}: {message}" for key, message in _impossible(_values(self))]
        if found:
            raise SpecificationError(f"settings of {self.recipe}: " + "; ".join(found))

    @property
    def rows(self) -> int:
        """Rows an update over all devices; completions, where they are sampled."""
        sampled = self.recipe in REINFORCED
        return (self.prompts or 0) * (self.group or 0) if sampled else self.batch

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads of `circuit`, in its order."""
        return tuple(Head.parse(name) for name in self.circuit or ())


def belongs(key: str, recipe: str) -> bool:
    """Whether the setting `key` means something to `recipe`."""
    return recipe in OWN.get(key, RECIPES)


def as_dict(settings: TrainingSettings) -> dict[str, Any]:
    """The settings that mean something to the recipe, in plain values that JSON takes."""
    values = json.loads(json.dumps(asdict(settings)))  # tuples become lists
    return {key: value for key, value in values.items() if belongs(key, settings.recipe)}


# --- reading ---------------------------------------------------------------------------------


def read_settings(
    source: str | Path, overrides: Sequence[str] = (), *, file: str = "settings"
) -> TrainingSettings:
    """Settings from YAML, some of them overridden.

    Args:
        source: the path of a YAML file (a `Path`), or YAML itself (a `str`).
        overrides: `key=value` each, the value in YAML; `adapter.rank=8` changes one setting of the
            adapter, `adapter=null` takes it away. A circuit may be a list of heads or the path of
            a `.circuit.yaml` file: beside the settings file there, from the working folder here.
        file: what messages call YAML that came from no file.

    Raises:
        SpecificationError: everything that is wrong, one `file:line: what` a line.
    """
    folder = Path()
    if isinstance(source, Path):
        folder, file, source = source.parent, str(source), lines.read_text(source, "settings file")
    problems = Problems(file)
    root = lines.compose(source, file)
    if root is None:
        raise SpecificationError(f"{file}:1: the file is empty: write e.g. recipe: sft")
    given: dict[str, _Given] = {}
    for key, node in lines.mapping(root, "", problems, known=_KEYS).items():
        _put(given, key, _Given(node, problems, folder))
    told = [problems, *_override(given, overrides)]
    values = {
        key: _read(key, one)
        for key, one in given.items()
        # null for a setting of some recipes: as if not given, so that an override takes it away.
        if not (key in OWN and lines.is_null(one.node))
    }
    if parts := {key: values.pop(key) for key in _PARTS if key in values}:
        if lacking := ", ".join(key.removeprefix("adapter.") for key in _PARTS if key not in parts):
            one = given[next(iter(parts))]
            one.tell(f"adapter: {lacking} missing: give rank, alpha and modules")
        values["adapter"] = AdapterSettings(*map(parts.get, _PARTS))  # type: ignore[arg-type]
    if (recipe := values.get("recipe")) in RECIPES:
        for key in [key for key in values if not belongs(key, recipe)]:
            del values[key]
            given[key].tell(
                f"{key!r} is no setting of {recipe}, but of {', '.join(OWN[key])}: remove it (an "
                f"override {key}=null does)"
            )
    for key in _REQUIRED:
        if key not in given:
            problems.add(1, f"{key!r} is missing: add it")
    if not any(told):
        top = _Given(root, problems, folder)
        for key, message in _impossible({**_DEFAULTS, **values}):
            given.get(key, top).tell(f"{key}: {message}")
    if any(told):
        raise SpecificationError("\n".join(str(one) for one in told if one))
    return TrainingSettings(**values)


class _Override(Problems):
    """What is wrong with an override, which has no lines."""

    def __str__(self) -> str:
        return "\n".join(f"{self.file}: {message}" for _, _, message in self._found)


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was written, where its problems are told, and the folder of its paths."""

    node: yaml.Node
    problems: Problems
    folder: Path

    def tell(self, message: str) -> None:
        self.problems.add(self.node, message)


def _put(given: dict[str, _Given], key: str, one: _Given) -> None:
    """Take up a value; an adapter by its parts, so that each has a line and can be overridden."""
    if key != "adapter":
        given[key] = one
    elif lines.is_null(one.node):
        for part in _PARTS:
            given.pop(part, None)
    else:
        inner = lines.mapping(one.node, "adapter", one.problems, known=_ADAPTER_KEYS)
        given |= {f"adapter.{name}": replace(one, node=node) for name, node in inner.items()}


def _override(given: dict[str, _Given], overrides: Sequence[str]) -> list[Problems]:
    """Put overrides in the place of what is given; what is wrong with each is returned."""
    told: list[Problems] = []
    seen: set[str] = set()
    for written in overrides:
        problems = _Override(f"override {written!r}")
        told.append(problems)
        key, equals, value = written.partition("=")
        if not equals:
            problems.add(1, "write key=value, e.g. steps=100")
        elif key not in (*_KEYS, *_PARTS):
            problems.add(1, f"unknown key {key!r}: {lines.nearest(key, (*_KEYS, *_PARTS))}")
        elif key in seen:
            problems.add(1, f"{key!r} is given twice: keep one")
        elif node := lines.compose(value, problems.file) or lines.compose("null", problems.file):
            _put(given, key, _Given(node, problems, Path()))
        seen.add(key)
    return told


def _read(key: str, one: _Given) -> Any:
    """A value as the setting is annotated; what is wrong with it goes to its problems."""
    node, problems, kind = one.node, one.problems, _PLAIN[key]
    if NoneType in get_args(kind):
        if lines.is_null(node):
            return None
        kind = get_args(kind)[0]
    if kind is int:
        return lines.integer(node, key, f"{key}: 8", problems)
    if kind is float:
        return lines.number(node, key, f"{key}: 0.1", problems)
    if kind is bool:
        return lines.flag(node, key, problems)
    if get_origin(kind) is not tuple:
        return lines.text(node, key, problems)
    example = "[q_proj, v_proj]"
    if key == "circuit":
        if isinstance(node, yaml.ScalarNode) and node.value.endswith(_CIRCUIT_FILES):
            return _heads_of_file(one)
        example = "[L2H1, L0H4], or a .circuit.yaml file"
    items = lines.sequence(node, key, example, problems)
    return tuple(lines.text(item, f"{key}: a name", problems) for item in items)


def _heads_of_file(one: _Given) -> tuple[str, ...]:
    from forgetguard.gate.schema import load_gate_file

    path = one.folder / Path(one.node.value).expanduser()
    try:
        circuit = load_gate_file(path)
    except SpecificationError as error:
        one.tell(f"circuit: {error}")
        return ()
    if circuit.auto:
        one.tell(f"circuit: {path} says auto, which names no heads: give their names")
    return tuple(str(head) for head in circuit.members)


# --- what cannot be --------------------------------------------------------------------------


def _values(settings: TrainingSettings | AdapterSettings) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _impossible(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every setting whose value cannot be, with what is wrong with it and what to write."""
    recipe = values["recipe"]
    if recipe not in RECIPES:
        yield "recipe", f"unknown recipe {recipe!r}: {lines.nearest(str(recipe), RECIPES)}"
        return
    for key in _REQUIRED_OWN:
        if belongs(key, recipe) and values[key] is None:
            yield key, f"{recipe} needs it: add it"
    own = {key: value for key, value in values.items() if belongs(key, recipe)}
    if (adapter := own.pop("adapter")) is not None:
        own |= {f"adapter.{key}": value for key, value in _values(adapter).items()}
    for key, value in own.items():
        try:
            _type(key).validate_python(value)
        except ValidationError as error:
            yield key, f"{error.errors(include_url=False)[0]['msg']}, got {value!r}"
    save_every, log_every = values["save_every"], values["log_every"]
    if save_every > 0 and log_every > 0 and save_every % log_every:
        yield (
            "save_every",
            f"must be a multiple of log_every ({log_every}), so a resumed run logs the same "
            f"losses, got {save_every}",
        )
    if values["warmup"] > values["steps"] > 0:
        yield "warmup", f"must be at most steps ({values['steps']}), got {values['warmup']}"
    names = own.get("circuit") or ()
    for name in dict.fromkeys(names):
        try:
            Head.parse(name)
        except SpecificationError as error:
            yield "circuit", f"{error} (the term holds attention heads only)"
        if names.count(name) > 1:
            yield "circuit", f"{name} is given twice: keep one"


_KEYS, _ADAPTER_KEYS = (
    tuple(field.name for field in fields(kind)) for kind in (TrainingSettings, AdapterSettings)
)
_PARTS = tuple(f"adapter.{key}" for key in _ADAPTER_KEYS)
_DEFAULTS = {field.name: field.default for field in fields(TrainingSettings)}
_REQUIRED = tuple(key for key, default in _DEFAULTS.items() if default is MISSING)


def _hints(*, bounds: bool) -> dict[str, Any]:
    """How every setting is annotated, the parts of an adapter too, with or without its bounds."""
    whole, parts = (
        get_type_hints(kind, include_extras=bounds) for kind in (TrainingSettings, AdapterSettings)
    )
    return whole | {f"adapter.{key}": hint for key, hint in parts.items()}


_PLAIN, _BOUNDED = _hints(bounds=False), _hints(bounds=True)


@functools.cache
def _type(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(_BOUNDED[key])
