"""From a reference entry to a judged variant: a maker gives candidates, this holds them against their reference.

What judges is the component that uses the model, on held-out frames; the ONNX reference on the CPU is the truth.
"""

from __future__ import annotations

import importlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trendflow.contracts.canonical import sha256_hex, utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.loaded import OwnedHandle, WrappedHandle
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow.models.plan_identity import PlanIdentity
from trendflow.models.recipes import require_installed
from trendflow.models.sources import WeightsFile
from trendflow.models.store import WeightsStore
from trendflow.optimisation.clips import Clip, Part, split
from trendflow.optimisation.host import cpu_name
from trendflow.optimisation.parity import Precision, scalar_moves
from trendflow.optimisation.report import Speed, Verdict, build_report
from trendflow.optimisation.roles import Judged, Seen, judged_by, see

SPEED_BATCH, SPEED_REPEATS = 8, 15

Note = Callable[[str], None]


@dataclass(frozen=True)
class Optimised:
    """A variant: its file, the report on it, and whether it may enter the catalogue."""

    name: str
    data: bytes
    report: dict[str, Any]

    @property
    def published(self) -> bool:
        return bool(self.report["published"])


@dataclass(frozen=True)
class Workshop:
    """What a maker works with. `folder` is its own until the command ends."""

    entry: CatalogueEntry
    judged: Judged
    reference: OnnxHandle
    path: Path
    calibration: list[Part]
    folder: Path
    note: Note

    def record(self, parts: Sequence[Part]) -> tuple[Seen, list[Path]]:
        """Run the component with the reference; also the inputs it fed the model, one file per input."""
        recorder = _Recorder(self.reference, self.folder)
        return see(self.judged, recorder, parts), recorder.files

    def variant_entry(self, name: str, data: bytes, file: str, **changes: Any) -> CatalogueEntry:
        """The reference's entry with another name and file, to load the variant by."""
        entry = self.entry.model_copy(
            update={
                "name": name,
                "files": (WeightsFile(path=file, sha256=sha256_hex(data), bytes=len(data)),),
                "derived_from": self.entry.name,
                **changes,
            }
        )
        entry.__dict__.pop("weights_digest", None)  # remembered for the reference's files
        return entry


@dataclass(frozen=True)
class Candidate:
    """A variant that was made: its file and how, loaded, and the model it has to be faster than."""

    data: bytes
    method: Mapping[str, Any]
    precision: Precision
    model: OwnedHandle
    rival: OwnedHandle
    inputs: Sequence[Path]
    """Inputs to measure the speed with, one per file."""
    packages: Sequence[str]
    """What decides the bytes, besides numpy and TensorRT."""
    plan: PlanIdentity | None = None


Maker = Callable[[Workshop], Iterator[Candidate]]
"""Gives candidates from the most wanted to the last resort; the next one is made only when the last does not agree."""


def optimise(
    entry: CatalogueEntry,
    models_dir: Path,
    clips: Sequence[Clip],
    make: Maker,
    note: Note = lambda text: None,
) -> Optimised:
    """Make and judge a variant of `entry`: the first candidate that agrees with it, else the last one.

    Raises `config_invalid` (nothing to optimise, or nothing to judge it by), `dependency_missing` (the extra that makes
    models), `input_constraint_violated` (too few frames) and what making, loading and running the model raise.
    """
    judged = judged_by(entry)
    require_reference(entry)
    require_installed(entry.name, ("onnx",))
    calibration, held_out = split(clips)
    path = WeightsStore(models_dir).verify(entry)[0]
    reference = OnnxHandle.load(entry, path, "cpu", threads=1)
    with tempfile.TemporaryDirectory(prefix="trendflow-optimise-") as folder:
        shop = Workshop(entry, judged, reference, path, calibration, Path(folder), note)
        made, verdict = _chosen(shop, make, held_out)
    report = build_report(
        verdict,
        created_at=utc_now(),
        reference=_identity(entry, path.stat().st_size),
        variant=_identity(made.model.entry, len(made.data)),
        component={"name": judged.spec.name, "producer_version": judged.spec.producer_version},
        method=made.method,
        versions={package: _version(package) for package in ("numpy", *made.packages)},
        videos=[
            {"name": clip.name, "sha256": clip.sha256, "calibration_frames": fit, "held_out_frames": held}
            for clip, fit, held in _frames_by_clip(clips, calibration, held_out)
        ],
        plan=made.plan,
    )
    return Optimised(made.model.entry.name, made.data, report)


def require_reference(entry: CatalogueEntry) -> None:
    """Raises `config_invalid` for an entry that no variant is made from."""
    if entry.engine != "onnx" or entry.precision != "fp32" or entry.device_policy != "cpu":
        raise TrendFlowError(
            "config_invalid",
            f"{entry.name} is {entry.engine} {entry.precision} for {entry.device_policy}; "
            "variants are made from ONNX models in fp32 for the CPU.",
            entry=entry.name,
        )


def _chosen(shop: Workshop, make: Maker, held_out: Sequence[Part]) -> tuple[Candidate, Verdict]:
    expected: Seen | None = None
    chosen: tuple[Candidate, Verdict] | None = None
    failure = TrendFlowError("internal_error", "The maker made nothing.")
    for candidate in make(shop):
        if expected is None:
            shop.note(f"judging by {sum(len(part.samples) for part in held_out)} held-out frames")
            expected = see(shop.judged, shop.reference, held_out)
        try:
            chosen = candidate, _judge(shop.judged, candidate, expected, held_out)
        except TrendFlowError as exc:
            if exc.error_code != "artifact_validation_failed":
                raise
            # Values that are not finite, as where float16 overflows: another precision may do.
            chosen, failure = None, exc
            shop.note(exc.message)
            continue
        if chosen[1].agrees:
            break
        shop.note(f"{candidate.model.entry.name} does not agree: {'; '.join(chosen[1].reasons)}")
    if chosen is None:
        raise failure
    return chosen


def _judge(judged: Judged, candidate: Candidate, expected: Seen, parts: Sequence[Part]) -> Verdict:
    seen = see(judged, candidate.model, parts)
    return Verdict(
        kind=judged.kind,
        precision=candidate.precision,
        metrics=judged.measure(expected.outputs, seen.outputs),
        scalars=scalar_moves(expected.scalars, seen.scalars),
        speed=_speed(candidate),
    )


def _speed(candidate: Candidate) -> Speed:
    """Both models in turn on the same input, so that other work on the machine slows both."""
    rival, variant = candidate.rival, candidate.model
    batch = min(SPEED_BATCH, variant.entry.max_batch_size)
    feeds = [load_input(file) for file in candidate.inputs[:batch]]
    feed = {name: np.concatenate([one[name] for one in feeds])[:batch] for name in feeds[0]}
    times: list[tuple[float, float]] = []
    for _ in range(SPEED_REPEATS):
        started = time.perf_counter()
        rival.infer(feed)
        between = time.perf_counter()
        variant.infer(feed)
        times.append((between - started, time.perf_counter() - between))
    return Speed(
        reference_ms=1000 * statistics.median(a for a, _ in times),
        variant_ms=1000 * statistics.median(b for _, b in times),
        speedup=statistics.median(a / b for a, b in times),
        batch=batch,
        repeats=SPEED_REPEATS,
        cpu=cpu_name(),
    )


def _identity(entry: CatalogueEntry, size: int) -> dict[str, Any]:
    return {
        "name": entry.name,
        "version": entry.version,
        "weights_digest": entry.weights_digest,
        "bytes": size,
        "precision": entry.precision,
    }


def _version(package: str) -> str:
    """As the module says: distributions of one module have several names, such as onnxruntime-gpu."""
    return str(importlib.import_module(package).__version__)


def _frames_by_clip(
    clips: Sequence[Clip], calibration: Sequence[Part], held_out: Sequence[Part]
) -> Iterator[tuple[Clip, int, int]]:
    for clip in clips:
        fit, held = (sum(len(part.samples) for part in parts if part.clip is clip) for parts in (calibration, held_out))
        yield clip, fit, held


class _Recorder(WrappedHandle):
    """A model that also writes down what its component feeds it."""

    def __init__(self, model: OnnxHandle, folder: Path) -> None:
        super().__init__(model)
        self._folder = folder
        self.files: list[Path] = []

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        # Hundreds of input tensors may be larger than memory, so they wait on disk, one input per file.
        for unit in range(min(len(array) for array in inputs.values())):
            file = self._folder / f"input_{len(self.files):05d}.npz"
            np.savez(file, allow_pickle=False, **{name: array[unit : unit + 1] for name, array in inputs.items()})
            self.files.append(file)
        return super().infer(inputs)


def load_input(file: Path) -> dict[str, np.ndarray]:
    """One recorded input, with a batch axis of one."""
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}
