"""TensorRT plans: built on the GPU that will run them, from the ONNX file of the reference.

TensorRT types a network by its graph: every tensor has the type that the ONNX file gives it, so a plan in fp16 is made
of the fp16 file, with inputs and outputs in float32 all the same. fp16 is what is wanted; fp32 is made only when fp16
misses a limit of the parity report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.models import onnx_runtime, tensorrt_runtime
from trendflow.models.allocation import is_allocation_failure
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.device import Device
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow.models.plan_identity import PlanIdentity
from trendflow.models.tensorrt_runtime import TensorRTHandle, engine_log
from trendflow.models.tensors import BATCH, TensorSpec
from trendflow.optimisation.parity import Precision
from trendflow.optimisation.pipeline import Candidate, Workshop

DEVICE = "cuda"
WORKSPACE_SHARE = 0.5
"""Share of the free memory that the layers of one plan may use for themselves; other models need some too."""
_PACKAGES = ("onnx", "onnxruntime")
_FORMATS: Mapping[Precision, str] = {"fp16": "float16, inputs and outputs float32", "fp32": "float32 without TF32"}


@dataclass
class PlanBuilder:
    """Builds plans on one device. `timing` is TensorRT's timing cache, which every build adds to.

    With the timings of an earlier build the next one is faster and chooses the same kernels. A cache of another GPU or
    release is not used.
    """

    device: Device
    identity: PlanIdentity
    timing: bytes = field(default=b"", repr=False)

    @classmethod
    def here(cls, entry: CatalogueEntry) -> PlanBuilder:
        """The builder of this machine's GPU.

        Raises `device_unavailable` without a GPU that passes its probe, `dependency_missing` without the packages.
        """
        try:
            found, identity = tensorrt_runtime.require_device(DEVICE)
            onnx_runtime.require_device(DEVICE)
        except TrendFlowError as exc:
            if exc.error_code != "device_unavailable":
                raise
            raise TrendFlowError(
                "device_unavailable",
                f"A TensorRT plan of {entry.name} is built on the GPU that will run it, and none can be used here: "
                f"{exc.message}",
                device=DEVICE,
            ) from exc
        return cls(found.device, identity)

    def candidates(self, shop: Workshop) -> Iterator[Candidate]:
        """The reference as a plan in fp16, then in fp32; see `Maker`. It has to be faster than ONNX on the same GPU."""
        from trendflow.optimisation.quantise import half

        _require_one_open_size(shop.entry)
        _, inputs = shop.record(shop.calibration[:1])
        rival = OnnxHandle.load(shop.entry.model_copy(update={"device_policy": DEVICE}), shop.path, DEVICE)
        precisions: tuple[Precision, ...] = ("fp16", "fp32")
        for precision in precisions:
            shop.note(f"building a plan in {precision} for {self.identity}")
            plan, workspace = self.build(shop.entry, half(shop.path) if precision == "fp16" else shop.path.read_bytes())
            most = shop.entry.max_batch_size
            yield Candidate(
                data=plan,
                method={
                    "format": f"TensorRT plan, {_FORMATS[precision]}, batches 1 to {most}, "
                    f"workspace {workspace / 1e6:.0f} MB"
                },
                precision=precision,
                model=self._loaded(shop, precision, plan),
                rival=rival,
                inputs=inputs,
                packages=_PACKAGES,
                plan=self.identity,
            )

    def build(self, entry: CatalogueEntry, model: bytes) -> tuple[bytes, int]:
        """The plan of an ONNX file and the bytes of workspace it may use.

        Raises `model_load_failed` when TensorRT cannot take or build the model, `out_of_memory` when it says so.
        """
        trt = tensorrt_runtime.library()
        said = engine_log(trt)
        builder = trt.Builder(said.logger)
        # What TensorRT 11 always does; before it, networks took types from flags of the builder.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, said.logger)
        if not parser.parse(model):
            reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise _failure(entry, "cannot read", reasons or said.last_error)
        config = builder.create_builder_config()
        workspace = int(self.device.memory().free_mb * 1e6 * WORKSPACE_SHARE)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
        # TF32 rounds the operands of float32 products to ten bits of mantissa: that would not be the precision fp32.
        config.clear_flag(trt.BuilderFlag.TF32)
        profile = builder.create_optimization_profile()
        for spec in entry.inputs:
            one, most = (_shape(spec, batch) for batch in (1, entry.max_batch_size))
            profile.set_shape(spec.name, one, most, most)  # batches are as large as memory allows
        if config.add_optimization_profile(profile) < 0:
            raise _failure(entry, "takes no batches of", said.last_error)
        self._use_timings(config)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise _failure(entry, "cannot build", said.last_error)
        self.timing = bytes(config.get_timing_cache().serialize())
        return bytes(plan), workspace

    def _use_timings(self, config: Any) -> None:
        known = config.create_timing_cache(self.timing)
        if known is None or not config.set_timing_cache(known, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def _loaded(self, shop: Workshop, precision: Precision, plan: bytes) -> TensorRTHandle:
        path = shop.folder / "model.plan"
        path.write_bytes(plan)
        entry = shop.variant_entry(
            f"{shop.entry.name}_{precision}_{self.identity.tag}",
            plan,
            path.name,
            precision=precision,
            engine="tensorrt",
            device_policy=DEVICE,
            plan=self.identity,
        )
        return TensorRTHandle.load(entry, path, DEVICE)


def _shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(batch if dim == BATCH else int(dim) for dim in spec.shape)


def _require_one_open_size(entry: CatalogueEntry) -> None:
    """Raises `config_invalid` for inputs with other open sizes than the batch: nobody says how large they may get."""
    sizes = sorted({dim for spec in entry.inputs for dim in spec.shape if isinstance(dim, str) and dim != BATCH})
    if sizes:
        raise TrendFlowError(
            "config_invalid",
            f"{entry.name} takes inputs of any {', '.join(sizes)}; a plan is built for inputs of one size.",
            entry=entry.name,
        )


def _failure(entry: CatalogueEntry, what: str, said: str) -> TrendFlowError:
    if is_allocation_failure(said):
        return TrendFlowError("out_of_memory", f"Building a plan of {entry.name} ran out of memory.", entry=entry.name)
    reason = " ".join(said.split()).rstrip(".") or "it gives no reason"
    return TrendFlowError("model_load_failed", f"TensorRT {what} {entry.name}: {reason}.", entry=entry.name)
