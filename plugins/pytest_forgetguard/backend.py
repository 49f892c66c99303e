"""What the plugin needs of forgetguard, in one place; all but its errors is imported on use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.errors import SpecificationError

if TYPE_CHECKING:
    from forgetguard.checkpoints.options import LoadOptions
    from forgetguard.checkpoints.placement import ModelPair
    from forgetguard.checkpoints.spec import CheckpointSpec
    from forgetguard.gate.baseline import Baseline
    from forgetguard.gate.declaration import GateSpec, Limit
    from forgetguard.gate.session import GateSession
    from pytest_forgetguard.settings import Settings

Progress = Callable[[str, int, int], None]  # what, done, total
BUNDLED = "forgetguard_circuits"


class ModelBackend:
    """Loads checkpoints and circuits, and patches heads. Only `pair` and `session` may be slow."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pair: ModelPair | None = None

    def preflight(self) -> tuple[str, ...]:
        """Check the checkpoints without loading weights; return notes. Raises CheckpointError."""
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
        """Per role, fingerprints of weights, tokenizer and config."""
        from forgetguard.checkpoints.fingerprint import fingerprint

        options = self._load_options()
        return {role: asdict(fingerprint(spec, options)) for role, spec in self._specs().items()}

    def size(self) -> dict[str, int]:
        """How many layers the base has, and heads a layer, as far as its config.json says."""
        from forgetguard.checkpoints.described import full_config
        from forgetguard.checkpoints.local import localise
        from forgetguard.gate.suitability import config_size

        base = localise(self._specs()["base"], self._load_options(), weights=False)
        config = {} if base.kind == "adapter" else full_config(base)
        found = {what: config_size(config, what) for what in ("layers", "heads")}
        return {what: size for what, size in found.items() if size is not None}

    def environment(self) -> dict[str, Any]:
        """What the models run on (device, number format, threads), in plain values."""
        from forgetguard.gate.environment import environment

        return environment(self._load_options())

    def circuit(self, path: Path) -> GateSpec:
        """Read one circuit file. Raises SpecificationError with file and line."""
        from forgetguard.gate.schema import load_gate_file

        return replace(load_gate_file(path), prompt_seed=self._settings.prompt_seed)

    def check(self, circuits: Sequence[GateSpec]) -> None:
        """Refuse circuits that cannot be run together. Raises SpecificationError."""
        from forgetguard.gate import suitability

        reference, baseline = self._settings.reference, self._settings.baseline
        suitability.check_names(circuits)
        suitability.check_eval_tasks(circuits)
        suitability.check_given(
            circuits, reference=reference is not None, baseline=baseline is not None
        )

    def bundled(self) -> tuple[list[Path], list[str], int]:
        """The bundled circuit files to judge on the base, the names of the other circuits that fit
        it, and how many files there are in all."""
        from forgetguard.gate.bundled import bundled_files, bundled_for, divided

        found = bundled_for(
            self._specs()["base"],
            self._load_options(),
            reference=self._settings.reference is not None,
        )
        judged, left = divided(found, core=self._settings.bundled == "core")
        return judged, left, len(list(bundled_files()))

    def limit(self, key: str, maximum: float) -> Limit:
        """A limit that a Python gate declares. Raises SpecificationError for an unknown key, and
        for a maximum that a circuit file may not have."""
        from forgetguard.gate.declaration import Limit
        from forgetguard.gate.schema import check_maximum

        wrong = check_maximum(key, maximum)
        if wrong is not None:
            raise SpecificationError(f"{key}: {wrong}")
        return Limit(key, maximum)

    def pair(self) -> ModelPair:
        """The checkpoints, weights not yet loaded."""
        if self._pair is None:
            from forgetguard.checkpoints.libraries import import_libraries

            import_libraries()
            from forgetguard.checkpoints.placement import ModelPair

            self._pair = ModelPair(tuple(self._specs().values()), self._load_options())
        return self._pair

    def session(
        self,
        circuits: Sequence[GateSpec],
        progress: Progress | None,
        family: int,
        limits: Sequence[tuple[GateSpec, Limit]] = (),
    ) -> GateSession:
        """Open a session that measures these circuits; `family` is the number of limits of the
        whole run, which share its false-alarm rate, and those of `limits` that cannot be measured
        leave it. Raises ForgetguardError."""
        pair = self.pair()
        from forgetguard.gate.session import GateSession

        return GateSession(
            pair,
            circuits,
            seed=self._settings.seed,
            progress=progress,
            baseline=load_baseline(self._settings, self.environment()),
            recording=self._settings.recording,
            family=family,
            limits=limits,
            controls=self._settings.controls,
            keep=True,
        )

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

        names = (field.name for field in fields(LoadOptions))
        return LoadOptions(**{name: getattr(self._settings, name) for name in names})


def load_baseline(
    settings: Settings, environment: Mapping[str, Any] | None = None
) -> Baseline | None:
    """The baseline that verdicts are held against: none where there is none, nor in an update run,
    which records what it measures without comparing.

    Raises:
        SpecificationError: the file cannot be used.
    """
    from forgetguard.report import baseline_file
    from forgetguard.report.json_file import versions

    if settings.baseline is None or settings.update:
        return None
    return baseline_file.read(
        settings.baseline,
        recording=settings.update_new_only,
        versions=versions(),
        environment=environment,
    )
