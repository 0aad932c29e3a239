"""What holds for every component of the graph, whatever it measures: on the shipped clip, with a beat under it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from trendflow.components.base import AudioWindows, ComponentInputs, Upstream
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.graph import load_graph
from trendflow.contracts.package_data import data_path
from trendflow.models.batching import BatchRunner
from trendflow_tests.components.matrix.screening import Screen
from trendflow_tests.components.visual.clips import assert_same

FILM = "ordinary"
# In one process with the other tests of this film, which is processed once per process.
pytestmark = pytest.mark.xdist_group(f"matrix-{FILM}")

NODES = {node.name: node for node in load_graph(data_path("component_graph.yaml")).components.values()}
PURE = [name for name, node in NODES.items() if node.kind != "segmenter"]
AUDIO = [name for name in PURE if not {"audio", "audio_full"}.isdisjoint(NODES[name].reads)]


def _run(screening: Screen, component: str, **changes: Any) -> Artifact:
    shown = screening(FILM)
    module = shown.run.deployment.registry[component].module
    assert module is not None
    artifact: Artifact = module.run(dataclasses.replace(shown.inputs(component), **changes))
    return artifact


def _stored(screening: Screen, component: str) -> Artifact:
    """What the run stored, in batches of up to eight."""
    arrays, meta = screening(FILM).finished[component].artifacts[component]
    return Artifact(arrays, meta["status"], meta["empty_reason"])


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("component", PURE)
def test_batches_do_not_matter(screening: Screen, component: str, batch_size: int) -> None:
    runner = BatchRunner(batch_size)
    assert_same(_stored(screening, component), _run(screening, component, runner=runner))
    limits = [model.entry.max_batch_size for model in screening(FILM).inputs(component).models.values()]
    if limits:
        limit = min(batch_size, *limits)
        assert runner.effective_batch_size is not None
        assert min(2, limit) <= runner.effective_batch_size <= limit  # a document may have fewer chunks than seven


@pytest.mark.parametrize("component", PURE)
def test_the_same_inputs_in_another_order_give_the_same_bytes(screening: Screen, component: str) -> None:
    inputs = screening(FILM).inputs(component)
    again = _run(
        screening,
        component,
        **{
            field.name: _reversed(value)
            for field in dataclasses.fields(ComponentInputs)
            if isinstance(value := getattr(inputs, field.name), Mapping)
        },
        runner=BatchRunner(32),
    )
    stored = _stored(screening, component)
    assert (again.status, again.empty_reason) == (stored.status, stored.empty_reason)
    assert {name: _bytes(array) for name, array in again.arrays.items()} == {
        name: _bytes(array) for name, array in stored.arrays.items()
    }


@pytest.mark.parametrize("component", AUDIO)
def test_a_window_is_measured_alone(screening: Screen, component: str) -> None:
    """Windows in the opposite order give the rows in the opposite order."""
    audio = screening(FILM).inputs(component).need_audio()
    assert audio.windows is not None
    backwards = _run(screening, component, audio=dataclasses.replace(audio, windows=_backwards(audio.windows)))
    stored = _stored(screening, component).arrays
    rows = [name for name, array in stored.items() if array.ndim and len(array) == len(audio.windows.mask)]
    assert "segment_mask" in rows
    for name in rows:
        np.testing.assert_allclose(backwards.arrays[name][::-1], stored[name], rtol=1e-4, atol=1e-6, err_msg=name)


def _reversed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same mapping, written down from the end; so are the arrays and meta of upstream artifacts."""
    return {
        name: dataclasses.replace(value, arrays=_reversed(value.arrays), meta=_reversed(value.meta))
        if isinstance(value, Upstream)
        else value
        for name, value in reversed(list(values.items()))
    }


def _backwards(windows: AudioWindows) -> AudioWindows:
    arrays = ("start_sec", "end_sec", "center_sec", "mask")
    return dataclasses.replace(windows, **{name: getattr(windows, name)[::-1] for name in arrays})


def _bytes(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, np.ascontiguousarray(array).tobytes()
