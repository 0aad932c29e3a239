"""Variants that stay ONNX files for the CPU: int8, calibrated on real frames, and fp16.

Everything is measured on one thread, so that the numbers describe the model and not the machine's idle cores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trendflow.models.onnx_runtime import OnnxHandle
from trendflow.optimisation.parity import LIMITS, Precision, scalar_moves
from trendflow.optimisation.pipeline import Candidate, Maker, Workshop, load_input
from trendflow.optimisation.report import MAX_SCALAR_MOVE
from trendflow.optimisation.roles import see

if TYPE_CHECKING:
    from trendflow.optimisation.quantise import Quantiser

MARGIN = 0.75
"""Share of the allowed loss that the layers in float are chosen for; held-out frames are a little worse."""
STEP, BLOCK = 4, 2
"""First layers that the search for those in float adds at once, and takes back at once."""
SENSITIVITY_INPUTS = 16
"""Calibration inputs, evenly spread, on which the rounding of one layer is measured."""
_PACKAGES = ("onnx", "onnxruntime")


def int8(shop: Workshop) -> Iterator[Candidate]:
    """The reference with layers in int8, as many as the limits allow with a margin; see `Maker`."""
    from trendflow.optimisation.quantise import METHOD, Quantiser

    expected, files = shop.record(shop.calibration)
    shop.note(f"calibrating with {len(expected.outputs)} frames")
    quantiser = Quantiser(shop.path, shop.folder)
    quantiser.calibrate(map(load_input, files))

    limits = [limit.tightened(MARGIN) for limit in LIMITS[shop.judged.kind, "int8"]]

    def holds(in_float: Collection[str]) -> bool:
        variant = _loaded(shop, "int8", quantiser.quantise(in_float))
        found = see(shop.judged, variant, shop.calibration)
        variant.close()
        metrics = shop.judged.measure(expected.outputs, found.outputs)
        moves = scalar_moves(expected.scalars, found.scalars)
        worst = max(moves, key=lambda name: moves[name].typical)
        values = ", ".join(f"{limit.metric} {metrics[limit.metric]:.4f}" for limit in limits)
        shop.note(
            f"{len(in_float)} of {len(quantiser.layers)} layers in float: {values}, {worst} moves by "
            f"{moves[worst].typical:.3f} standard deviations"
        )
        return moves[worst].typical <= MARGIN * MAX_SCALAR_MOVE and all(
            limit.holds(metrics[limit.metric]) for limit in limits
        )

    in_float = _first_in_float(quantiser, holds)
    if in_float is None:
        in_float = layers_in_float(quantiser.layers, _by_noise_per_product(shop, quantiser, files), holds)
    method = {**METHOD, "layers": len(quantiser.layers), "layers_in_float": list(in_float)}
    yield _candidate(shop, "int8", quantiser.quantise(in_float), method, files)


def fp16(shop: Workshop) -> Iterator[Candidate]:
    """The reference with weights and arithmetic in float16; see `Maker`."""
    from trendflow.optimisation.quantise import half

    _, files = shop.record(shop.calibration[:1])
    yield _candidate(shop, "fp16", half(shop.path), {"format": "float16, inputs and outputs float32"}, files)


MAKERS: Mapping[str, Maker] = {"int8": int8, "fp16": fp16}


def _first_in_float(quantiser: Quantiser, holds: Callable[[Collection[str]], bool]) -> tuple[str, ...] | None:
    """Layers in float with few changes between float and int8, each of which takes time; None where that is too little.

    The first layers see the widest ranges, and what they round goes through all others: they stay in float until
    the measures hold, up to half of all layers. Then every few of them that can, from the last to the first, become
    int8 after all.
    """
    others = [layer for layer in quantiser.layers if layer not in quantiser.last]
    for count in range(0, len(others) // 2 + 1, STEP):
        kept = others[:count]
        if holds((*kept, *quantiser.last)):
            break
    else:
        return None
    for start in reversed(range(0, len(kept), BLOCK)):
        fewer = kept[:start] + kept[start + BLOCK :]
        if holds((*fewer, *quantiser.last)):
            kept = fewer
    return (*kept, *quantiser.last)


def _by_noise_per_product(shop: Workshop, quantiser: Quantiser, files: Sequence[Path]) -> list[str]:
    """Layers but the last ones, from the most to the least worth being in int8.

    What a layer costs is the noise that it alone brings into the outputs of the model, as a share of their variance;
    what it gains are its products. Rounding errors of different layers hardly depend on each other, so noise adds up.
    """
    step = max(1, len(files) // SENSITIVITY_INPUTS)
    feeds = [load_input(file) for file in files[::step][:SENSITIVITY_INPUTS]]
    expected = [shop.reference.infer(feed) for feed in feeds]
    layers = [layer for layer in quantiser.layers if layer not in quantiser.last]
    noise = {}
    for layer in layers:
        variant = _loaded(shop, "int8", quantiser.quantise([other for other in quantiser.layers if other != layer]))
        noise[layer] = output_noise(expected, [variant.infer(feed) for feed in feeds])
        variant.close()
        shop.note(f"{layer} in int8 alone: noise {noise[layer]:.2e}, {quantiser.products[layer]:,} products")
    return sorted(layers, key=lambda layer: noise[layer] / quantiser.products[layer])


def output_noise(expected: Sequence[Mapping[str, np.ndarray]], found: Sequence[Mapping[str, np.ndarray]]) -> float:
    """Mean over the outputs of the squared error as a share of the output's variance, over all inputs.

    An output that is constant counts as without noise while it stays the same, and as nothing but noise otherwise.
    """
    shares = []
    for name in expected[0]:
        a, b = (np.stack([one[name] for one in outputs]).astype(np.float64) for outputs in (expected, found))
        error, variance = float(np.square(a - b).mean()), float(a.var())
        shares.append(error / variance if variance > 0.0 else float(error > 0.0))
    return float(np.mean(shares))


def layers_in_float(
    layers: Sequence[str], candidates: Sequence[str], holds: Callable[[Collection[str]], bool]
) -> tuple[str, ...]:
    """The fewest of `layers` that the limits want in float, in their order; those of `candidates` may become int8.

    A bisection over how many of the candidates, from the first, do. Where not even one may, one does: the report will
    say what is missed.
    """

    def without(count: int) -> tuple[str, ...]:
        return tuple(layer for layer in layers if layer not in candidates[:count])

    low, high = 1, len(candidates)
    while low < high:
        middle = (low + high + 1) // 2
        if holds(without(middle)):
            low = middle
        else:
            high = middle - 1
    return without(low)


def _candidate(
    shop: Workshop, precision: Precision, data: bytes, method: Mapping[str, Any], inputs: Sequence[Path]
) -> Candidate:
    return Candidate(
        data=data,
        method=method,
        precision=precision,
        model=_loaded(shop, precision, data),
        rival=shop.reference,
        inputs=inputs,
        packages=_PACKAGES,
    )


def _loaded(shop: Workshop, precision: Precision, data: bytes) -> OnnxHandle:
    """The variant as a model of its own. Raises what loading raises."""
    path = shop.folder / "model.onnx"
    path.write_bytes(data)
    entry = shop.variant_entry(f"{shop.entry.name}_{precision}", data, path.name, precision=precision)
    return OnnxHandle.load(entry, path, "cpu", threads=1)
