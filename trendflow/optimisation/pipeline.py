"""From a reference entry to a judged variant: graph optimisation, lower precision, parity report.

Everything is measured on one thread, so that the numbers describe the model and not the machine's idle cores.
"""

from __future__ import annotations

import importlib.metadata
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trendflow.contracts.canonical import sha256_hex, utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.loaded import WrappedHandle
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow.models.recipes import require_installed
from trendflow.models.sources import WeightsFile
from trendflow.models.store import WeightsStore
from trendflow.optimisation.clips import Clip, Part, split
from trendflow.optimisation.host import cpu_name
from trendflow.optimisation.parity import LIMITS, Precision, scalar_moves
from trendflow.optimisation.report import Speed, Verdict, build_report
from trendflow.optimisation.roles import Judged, Seen, judged_by, see

if TYPE_CHECKING:
    from trendflow.optimisation.quantise import Quantiser

MARGIN = 0.75
"""Share of the allowed loss that the layers in float are chosen for; held-out frames are a little worse."""
STEP, BLOCK = 4, 2
"""Layers that the search for those in float adds at once, and takes back at once."""
SPEED_BATCH, SPEED_REPEATS = 8, 15
_PACKAGES = ("numpy", "onnx", "onnxruntime")

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


def optimise(
    entry: CatalogueEntry,
    models_dir: Path,
    clips: Sequence[Clip],
    precision: Precision,
    note: Note = lambda text: None,
) -> Optimised:
    """Make and judge the variant of `entry` in `precision`.

    Raises `config_invalid` (nothing to optimise, or nothing to judge it by), `dependency_missing` (the extra that makes
    models), `input_constraint_violated` (too few frames) and what loading and running the model raise.
    """
    judged = judged_by(entry)
    _require_reference(entry)
    require_installed(entry.name, ("onnx",))
    calibration, held_out = split(clips)
    path = WeightsStore(models_dir).verify(entry)[0]
    reference = OnnxHandle.load(entry, path, "cpu", threads=1)
    with tempfile.TemporaryDirectory(prefix="trendflow-optimise-") as folder:
        work = _Work(entry, judged, precision, reference, path, calibration, Path(folder), note)
        data, method = work.make()
        note(f"judging by {sum(len(part.samples) for part in held_out)} held-out frames")
        variant = work.load(data)
        verdict = work.judge(variant, see(judged, reference, held_out), held_out)
    name = f"{entry.name}_{precision}"
    report = build_report(
        verdict,
        created_at=utc_now(),
        reference=_identity(entry.name, entry.version, entry.weights_digest, path.stat().st_size, entry.precision),
        variant=_identity(name, entry.version, variant.entry.weights_digest, len(data), precision),
        component={"name": judged.spec.name, "producer_version": judged.spec.producer_version},
        method=method,
        versions={package: importlib.metadata.version(package) for package in _PACKAGES},
        videos=[
            {"name": clip.name, "sha256": clip.sha256, "calibration_frames": fit, "held_out_frames": held}
            for clip, fit, held in _frames_by_clip(clips, calibration, held_out)
        ],
    )
    return Optimised(name, data, report)


def _require_reference(entry: CatalogueEntry) -> None:
    if entry.engine != "onnx" or entry.precision != "fp32" or entry.device_policy != "cpu":
        raise TrendFlowError(
            "config_invalid",
            f"{entry.name} is {entry.engine} {entry.precision} for {entry.device_policy}; "
            "variants are made from ONNX models in fp32 for the CPU.",
            entry=entry.name,
        )


def _identity(name: str, version: str, digest: str, size: int, precision: str) -> dict[str, Any]:
    return {"name": name, "version": version, "weights_digest": digest, "bytes": size, "precision": precision}


def _frames_by_clip(
    clips: Sequence[Clip], calibration: Sequence[Part], held_out: Sequence[Part]
) -> Iterator[tuple[Clip, int, int]]:
    for clip in clips:
        fit, held = (sum(len(part.samples) for part in parts if part.clip is clip) for parts in (calibration, held_out))
        yield clip, fit, held


@dataclass
class _Work:
    """One variant in the making."""

    entry: CatalogueEntry
    judged: Judged
    precision: Precision
    reference: OnnxHandle
    path: Path
    calibration: list[Part]
    folder: Path
    note: Note
    files: list[Path] = field(default_factory=list)
    """What the component fed the reference, one input per file; calibration and speed use it."""

    def make(self) -> tuple[bytes, dict[str, Any]]:
        """The variant's file and how it was made, for the report."""
        if self.precision == "fp16":
            from trendflow.optimisation.quantise import half

            recorder = _Recorder(self.reference, self.folder)
            see(self.judged, recorder, self.calibration[:1])
            self.files = recorder.files
            return half(self.path), {"format": "float16, inputs and outputs float32"}
        return self._int8()

    def _int8(self) -> tuple[bytes, dict[str, Any]]:
        from trendflow.optimisation.quantise import METHOD, Quantiser

        recorder = _Recorder(self.reference, self.folder)
        expected = see(self.judged, recorder, self.calibration)
        self.files = recorder.files
        self.note(f"calibrating with {len(expected.outputs)} frames")
        quantiser = Quantiser(self.path, self.folder)
        quantiser.calibrate(recorder.feeds())
        in_float = self._layers_in_float(quantiser, expected)
        return quantiser.quantise(in_float), {
            **METHOD,
            "layers": len(quantiser.layers),
            "layers_in_float": list(in_float),
        }

    def _layers_in_float(self, quantiser: Quantiser, expected: Seen) -> tuple[str, ...]:
        """A greedy search, on the calibration frames alone.

        The first layers see the widest ranges, and what they round goes through all others: they stay in float until
        the measures hold, up to half of all layers. Then every few of them that can, from the last to the first, become
        int8 after all.
        """

        def holds(in_float: Collection[str]) -> bool:
            variant = self.load(quantiser.quantise(in_float))
            metrics = self.judged.measure(expected.outputs, see(self.judged, variant, self.calibration).outputs)
            variant.close()
            limits = LIMITS[self.judged.kind, self.precision]
            values = ", ".join(f"{limit.metric} {metrics[limit.metric]:.4f}" for limit in limits)
            self.note(f"{len(in_float)} of {len(quantiser.layers)} layers in float: {values}")
            return all(limit.tightened(MARGIN).holds(metrics[limit.metric]) for limit in limits)

        others = [layer for layer in quantiser.layers if layer not in quantiser.last]
        kept: list[str] = []
        for count in range(0, len(others) // 2 + 1, STEP):
            kept = others[:count]
            if holds((*kept, *quantiser.last)):
                break
        else:  # nothing to take back: the report will say what is missed
            return (*kept, *quantiser.last)
        for start in reversed(range(0, len(kept), BLOCK)):
            fewer = kept[:start] + kept[start + BLOCK :]
            if holds((*fewer, *quantiser.last)):
                kept = fewer
        return (*kept, *quantiser.last)

    def load(self, data: bytes) -> OnnxHandle:
        """The variant as a model of its own. Raises what loading raises."""
        file = WeightsFile(path="model.onnx", sha256=sha256_hex(data), bytes=len(data))
        entry = self.entry.model_copy(
            update={
                "name": f"{self.entry.name}_{self.precision}",
                "precision": self.precision,
                "files": (file,),
                "derived_from": self.entry.name,
            }
        )
        entry.__dict__.pop("weights_digest", None)  # remembered for the reference's files
        path = self.folder / file.path
        path.write_bytes(data)
        return OnnxHandle.load(entry, path, "cpu", threads=1)

    def judge(self, variant: OnnxHandle, expected: Seen, parts: Sequence[Part]) -> Verdict:
        seen = see(self.judged, variant, parts)
        return Verdict(
            kind=self.judged.kind,
            precision=self.precision,
            metrics=self.judged.measure(expected.outputs, seen.outputs),
            scalars=scalar_moves(expected.scalars, seen.scalars),
            speed=self._speed(variant),
        )

    def _speed(self, variant: OnnxHandle) -> Speed:
        """Both models in turn on the same input, so that other work on the machine slows both."""
        batch = min(SPEED_BATCH, self.entry.max_batch_size)
        feeds = [_load(file) for file in self.files[:batch]]
        feed = {name: np.concatenate([one[name] for one in feeds])[:batch] for name in feeds[0]}
        times: list[tuple[float, float]] = []
        for _ in range(SPEED_REPEATS):
            started = time.perf_counter()
            self.reference.infer(feed)
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

    def feeds(self) -> Iterator[dict[str, np.ndarray]]:
        return map(_load, self.files)


def _load(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}
