"""What the plugin needs of forgetguard, in one place; everything in here is imported on use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from forgetguard.checkpoints.options import LoadOptions
    from forgetguard.checkpoints.placement import ModelPair
    from forgetguard.checkpoints.spec import CheckpointSpec
    from forgetguard.gate.schema import CircuitSpec, Limit
    from forgetguard.gate.verdict import Verdict
    from pytest_forgetguard.settings import Settings

Progress = Callable[[str, int, int], None]  # what, done, total
BUNDLED = "forgetguard_circuits"


class Measuring(Protocol):
    """An open gate session: `forgetguard.gate.session.GateSession` or a stand-in."""

    def judge(self, circuit: CircuitSpec, limit: Limit) -> Verdict: ...

    def close(self) -> None: ...


class Backend(Protocol):
    """Loads circuits and measures them. Only `pair` and `session` may be slow."""

    def preflight(self) -> tuple[str, ...]:
        """Check the checkpoints without loading weights; return notes. Raises CheckpointError."""

    def fingerprints(self) -> dict[str, dict[str, str]]:
        """Per role, fingerprints of weights, tokenizer and config."""

    def circuit(self, path: Path) -> CircuitSpec:
        """Read one circuit file. Raises SpecificationError with file and line."""

    def check(self, circuits: Sequence[CircuitSpec]) -> None:
        """Refuse circuits that cannot be run together. Raises SpecificationError."""

    def bundled(self) -> tuple[list[Path], int]:
        """The bundled circuit files that fit the base, and how many there are in all."""

    def limit(self, key: str, maximum: float) -> Limit:
        """A limit that a Python gate declares. Raises SpecificationError for an unknown key."""

    def pair(self) -> ModelPair:
        """The checkpoints, weights not yet loaded."""

    def session(self, circuits: Sequence[CircuitSpec], progress: Progress | None) -> Measuring:
        """Open a session that measures these circuits. Raises ForgetguardError."""


class ModelBackend:
    """The real thing: loads the checkpoints and patches their heads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pair: ModelPair | None = None

    def preflight(self) -> tuple[str, ...]:
        from forgetguard.checkpoints import preflight

        specs = self._specs()
        return preflight.check(
            specs["base"],
            specs["tuned"],
            specs.get("reference"),
            allow_same=self._settings.allow_same,
            options=self._load_options(),
        )

    def fingerprints(self) -> dict[str, dict[str, str]]:
        from forgetguard.checkpoints.fingerprint import fingerprint

        options = self._load_options()
        return {role: asdict(fingerprint(spec, options)) for role, spec in self._specs().items()}

    def circuit(self, path: Path) -> CircuitSpec:
        from forgetguard.gate.schema import load_circuit_file

        return load_circuit_file(path)

    def check(self, circuits: Sequence[CircuitSpec]) -> None:
        from forgetguard.gate import schema

        schema.check_names(circuits)
        if self._settings.reference is None:
            schema.check_reference(circuits)

    def bundled(self) -> tuple[list[Path], int]:
        files = list(_bundled_files())
        fitting = [(path, spec) for path, spec in files if self._fits(spec)]
        # Those made for this base come first; the architecture-free ones serve where none is.
        own = [path for path, spec in fitting if spec.fits is None or not spec.fits.any_base]
        return own or [path for path, _ in fitting], len(files)

    def limit(self, key: str, maximum: float) -> Limit:
        from forgetguard.errors import SpecificationError
        from forgetguard.gate.schema import LIMITS, Limit

        if key not in LIMITS:
            raise SpecificationError(f"unknown limit {key!r}; the limits are {', '.join(LIMITS)}")
        return Limit(key, maximum)

    def pair(self) -> ModelPair:
        if self._pair is None:
            from forgetguard.checkpoints.placement import ModelPair

            self._pair = ModelPair(tuple(self._specs().values()), self._load_options())
        return self._pair

    def session(self, circuits: Sequence[CircuitSpec], progress: Progress | None) -> Measuring:
        from forgetguard.gate.session import GateSession

        seed = self._settings.seed
        session: Measuring = GateSession(self.pair(), circuits, seed=seed, progress=progress)
        return session

    def _specs(self) -> dict[str, CheckpointSpec]:
        from forgetguard.checkpoints.spec import resolve

        given = {
            "base": self._settings.base,
            "tuned": self._settings.tuned,
            "reference": self._settings.reference,
        }
        return {role: resolve(value, role) for role, value in given.items() if value}

    def _load_options(self) -> LoadOptions:
        from forgetguard.checkpoints.options import LoadOptions

        settings = self._settings
        return LoadOptions(
            dtype=settings.dtype,
            device=settings.device,
            device_map=settings.device_map,
            trust_remote_code=settings.trust_remote_code,
            allow_pickle=settings.allow_pickle,
            merge_adapter=settings.merge_adapter,
        )

    def _fits(self, circuit: CircuitSpec) -> bool:
        from forgetguard.gate.schema import fits_base

        config, alias = self._base_config(), self._settings.base
        asked = circuit.fits.weights if circuit.fits is not None else None
        if circuit.fits is not None and asked is not None:
            # A fingerprint reads every byte of the weights: only where all else fits.
            rest = replace(circuit, fits=replace(circuit.fits, weights=None))
            if not fits_base(rest, config, None, alias=alias):
                return False
        weights = None if asked is None else self._base_weights
        return fits_base(circuit, config, weights, alias=alias)

    @cached_property
    def _base_weights(self) -> str:
        from forgetguard.checkpoints.fingerprint import fingerprint

        return fingerprint(self._specs()["base"], self._load_options()).weights

    def _base_config(self) -> dict[str, Any]:
        from forgetguard.checkpoints.described import full_config
        from forgetguard.checkpoints.local import localise

        base = localise(self._specs()["base"], self._load_options(), weights=False)
        return {} if base.kind == "adapter" else full_config(base)


def _bundled_files() -> Iterator[tuple[Path, CircuitSpec]]:
    from forgetguard.gate.schema import load_circuit_file

    try:
        folder = resources.files(BUNDLED)
    except ModuleNotFoundError:
        return
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".circuit.yaml"):
            path = Path(str(entry))
            yield path, load_circuit_file(path)
