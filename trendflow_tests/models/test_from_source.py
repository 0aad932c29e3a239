"""Models made here from a pinned download: how they are named and proven, and what an interruption leaves."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.models.build import build_models
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.inventory import list_models
from trendflow.models.onnx_graph import serialise
from trendflow.models.pool import ModelPool
from trendflow.models.pull import Pulled, pull_models
from trendflow.models.recipes import RECIPES, Recipe
from trendflow.models.resnet import resnet_classifier
from trendflow.models.store import WeightsStore
from trendflow_tests.models.builders import Exploit, catalogue_of, random_entry
from trendflow_tests.models.weights_server import DATA, Server

torch = pytest.importorskip("torch")
exports = pytest.importorskip("trendflow_tests.models.exports")


@pytest.fixture(scope="module")
def published() -> tuple[Any, bytes]:
    """A network with random weights and its checkpoint, as it would lie on the server."""
    return exports.published_checkpoint(365)


@pytest.fixture
def entry(server: Server, published: tuple[Any, bytes]) -> CatalogueEntry:
    """The Places365 entry, for the random checkpoint on the test server."""
    server.data = published[1]
    return entry_of(server, published[1])


@pytest.fixture
def mirrored(server: Server, monkeypatch: pytest.MonkeyPatch) -> CatalogueEntry:
    """An entry whose recipe only reverses the bytes, for everything that is not about reading a checkpoint."""
    monkeypatch.setitem(RECIPES, "mirror", Recipe(lambda data: data[::-1]))
    return entry_of(server, DATA, recipe="mirror")


def entry_of(server: Server, checkpoint: bytes, **source: Any) -> CatalogueEntry:
    reference = Catalogue.load()["places365_resnet50"]
    digest = hashlib.sha256(checkpoint).hexdigest()
    changes = {"locator": server.url + "/{path}", "revision": "random", "sha256": digest, **source}
    return random_entry(
        reference,
        b"",
        files=[file.model_dump() for file in reference.files],
        source={**reference.source.model_dump(), **changes},
    )


def pull(entry: CatalogueEntry, models_dir: Path) -> Pulled:
    (row,) = pull_models(catalogue_of(entry), models_dir)
    return row


COMPANION = "catalogue.yaml"


def refused(action: Callable[[], object]) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        action()
    return caught.value


def left(models_dir: Path) -> list[str]:
    return sorted(path.name for path in models_dir.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def test_a_checkpoint_becomes_a_model_that_runs(
    server: Server, entry: CatalogueEntry, published: tuple[Any, bytes], tmp_path: Path
) -> None:
    assert pull(entry, tmp_path) == Pulled(entry.name, "1.0", "pulled", len(published[1]))
    assert server.requests == [("/resnet50_places365.pth.tar", None)]
    assert left(tmp_path) == ["model.onnx", "model.onnx.receipt.json"]
    images = np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        expected = published[0](torch.from_numpy(images)).logits.numpy()
    logits = ModelPool(tmp_path).get(entry).infer({"images": images})["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    # Another conversion, of tensors that torch itself has read, writes the same bytes.
    state = torch.load(io.BytesIO(published[1]), weights_only=True)["state_dict"]
    tensors = {name.removeprefix("module."): tensor.numpy() for name, tensor in state.items()}
    (made,) = WeightsStore(tmp_path).verify(entry)
    assert serialise(resnet_classifier(tensors)) == made.read_bytes()


def test_what_is_there_is_not_fetched_again(server: Server, mirrored: CatalogueEntry, tmp_path: Path) -> None:
    pull(mirrored, tmp_path)
    assert pull(mirrored, tmp_path) == Pulled(mirrored.name, "1.0", "present", 0)
    assert len(server.requests) == 1
    (row,) = list_models(catalogue_of(mirrored), tmp_path).entries
    assert row.digest_state == "present"


def test_only_a_pull_makes_it(mirrored: CatalogueEntry, tmp_path: Path) -> None:
    assert [row.action for row in build_models(catalogue_of(mirrored), tmp_path)] == ["skipped"]
    error = refused(lambda: WeightsStore(tmp_path).verify(mirrored))
    assert (error.error_code, error.detail["state"]) == ("weights_missing", "missing")
    assert "trendflow models pull" in error.message


def test_the_identity_is_that_of_source_and_recipe(server: Server, entry: CatalogueEntry) -> None:
    source = {"source": entry.source.sha256, "recipe": "resnet", "recipe_version": "1"}
    made = hashlib.sha256(json.dumps(source, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    files = json.dumps({"model.onnx": made}, separators=(",", ":")).encode()
    assert entry.weights_digest == hashlib.sha256(files).hexdigest()
    assert entry_of(server, b"other").weights_digest != entry.weights_digest


def _flip(store: WeightsStore, entry: CatalogueEntry) -> None:
    path = store.path(entry, entry.files[0])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _shorten(store: WeightsStore, entry: CatalogueEntry) -> None:
    path = store.path(entry, entry.files[0])
    path.write_bytes(path.read_bytes()[:-1])


def _drop_receipt(store: WeightsStore, entry: CatalogueEntry) -> None:
    store.receipt_path(entry, entry.files[0]).unlink()


def _foreign_receipt(store: WeightsStore, entry: CatalogueEntry) -> None:
    path = store.receipt_path(entry, entry.files[0])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": "0" * 64}))


def _broken_receipt(store: WeightsStore, entry: CatalogueEntry) -> None:
    store.receipt_path(entry, entry.files[0]).write_text("[")


@pytest.mark.parametrize(
    ("tamper", "state"),
    [
        (_flip, "mismatch"),
        (_shorten, "mismatch"),
        (_drop_receipt, "missing"),
        (_foreign_receipt, "mismatch"),
        (_broken_receipt, "mismatch"),
    ],
)
def test_a_file_that_is_not_what_was_made_is_refused_and_replaced(
    mirrored: CatalogueEntry, tmp_path: Path, tamper: Callable[[WeightsStore, CatalogueEntry], None], state: str
) -> None:
    pull(mirrored, tmp_path)
    store = WeightsStore(tmp_path)
    tamper(store, mirrored)
    error = refused(lambda: ModelPool(tmp_path).get(mirrored))
    assert (error.error_code, error.detail["state"]) == ("weights_missing", state)
    assert pull(mirrored, tmp_path).action == "pulled"
    assert store.verify(mirrored)[0].read_bytes() == DATA[::-1]


def test_another_source_is_refused(server: Server, mirrored: CatalogueEntry, tmp_path: Path) -> None:
    server.data = bytes([DATA[0] ^ 1]) + DATA[1:]
    assert refused(lambda: pull(mirrored, tmp_path)).error_code == "weights_missing"
    assert left(tmp_path) == []


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_broken_download_continues_though_its_size_may_be_unknown(
    server: Server, mirrored: CatalogueEntry, tmp_path: Path, size: int | None
) -> None:
    entry = entry_of(server, DATA, recipe="mirror", bytes=size)
    assert entry.weights_digest == mirrored.weights_digest
    server.break_after = 700_000
    assert refused(lambda: pull(entry, tmp_path)).error_code == "network_error"
    (partial,) = tmp_path.rglob("*.part")
    held = partial.stat().st_size
    assert 0 < held <= 700_000
    server.break_after = None
    assert pull(entry, tmp_path).bytes_downloaded == len(DATA) - held
    assert server.requests[-1][1] == f"bytes={held}-"
    assert left(tmp_path) == ["model.onnx", "model.onnx.receipt.json"]


def test_a_server_that_sends_more_than_the_known_size_is_cut_off(
    server: Server, mirrored: CatalogueEntry, tmp_path: Path
) -> None:
    server.data = DATA * 3
    entry = entry_of(server, DATA, recipe=mirrored.source.recipe, bytes=len(DATA))
    assert refused(lambda: pull(entry, tmp_path)).error_code == "weights_missing"
    assert left(tmp_path) == []


def test_an_interrupted_conversion_leaves_no_model(
    server: Server, mirrored: CatalogueEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(data: bytes) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setitem(RECIPES, "mirror", Recipe(interrupted))
        with pytest.raises(KeyboardInterrupt):
            pull(mirrored, tmp_path)
    assert WeightsStore(tmp_path).entry_state(mirrored) == "missing"
    assert [name for name in left(tmp_path) if not name.endswith(".part")] == []
    # The verified source is still there: the next attempt converts it without a download.
    assert pull(mirrored, tmp_path) == Pulled(mirrored.name, "1.0", "pulled", 0)
    assert len(server.requests) == 1
    assert left(tmp_path) == ["model.onnx", "model.onnx.receipt.json"]


def with_companion(entry: CatalogueEntry, sha256: str) -> CatalogueEntry:
    """The entry with one more file, a copy of a file in the shipped folder."""
    values = entry.model_dump()
    size = (data_path("models") / COMPANION).stat().st_size
    values["files"] = [*values["files"], {"path": "companion.yaml", "sha256": sha256, "bytes": size}]
    values["source"]["companions"] = {"companion.yaml": COMPANION}
    return CatalogueEntry.model_validate(values)


def test_a_companion_is_copied_from_the_shipped_folder(
    server: Server, mirrored: CatalogueEntry, tmp_path: Path
) -> None:
    shipped = (data_path("models") / COMPANION).read_bytes()
    entry = with_companion(mirrored, hashlib.sha256(shipped).hexdigest())
    pull(entry, tmp_path)
    model, companion = WeightsStore(tmp_path).verify(entry)
    assert (model.read_bytes(), companion.read_bytes()) == (DATA[::-1], shipped)
    assert len(server.requests) == 1
    assert refused(lambda: pull(with_companion(mirrored, "0" * 64), tmp_path)).error_code == "weights_missing"


def test_an_absent_package_is_named_before_anything_is_downloaded(
    server: Server, entry: CatalogueEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "resnet", Recipe(RECIPES["resnet"].make, ("onnx", "no_such_package_anywhere")))
    error = refused(lambda: pull(entry, tmp_path))
    assert (error.error_code, error.detail["package"]) == ("dependency_missing", "no_such_package_anywhere")
    assert "trendflow[build]" in error.message
    assert server.requests == []


def test_a_pinned_checkpoint_that_runs_code_is_refused(server: Server, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    server.data = pickle.dumps(Exploit(marker))
    entry = entry_of(server, server.data)
    assert refused(lambda: pull(entry, tmp_path / "models")).error_code == "model_load_failed"
    assert not marker.exists()
    assert WeightsStore(tmp_path / "models").entry_state(entry) == "missing"


def test_a_checkpoint_of_another_architecture_is_refused(server: Server, tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(8, 3, 7, 7)}}, tmp_path / "other.pth")
    server.data = (tmp_path / "other.pth").read_bytes()
    error = refused(lambda: pull(entry_of(server, server.data), tmp_path / "models"))
    assert error.error_code == "weights_missing"
    assert "bn1.weight" in error.message


@pytest.mark.parametrize(
    ("files", "source", "words"),
    [
        ([{"path": "m", "sha256": "0" * 64, "bytes": 1}], {}, "exactly when a download is converted"),
        ([{"path": "m", "sha256": "from_source", "bytes": 1}], {}, "'bytes' exactly when its sha256 is pinned"),
        ([{"path": "m", "sha256": "0" * 64}], {}, "'bytes' exactly when its sha256 is pinned"),
        (None, {"kind": "repository", "recipe_version": None}, "exactly when a download is converted"),
        (None, {"recipe": "copy", "locator": "https://x/{revision}/{path}"}, "exactly when a download is converted"),
        (None, {"recipe_version": "7"}, "another recipe is another version"),
        (None, {"recipe_version": None}, "another recipe is another version"),
        (None, {"recipe": "alchemy"}, "unknown recipe 'alchemy'"),
        (None, {"member": None}, "needs 'member' and 'sha256'"),
        (None, {"sha256": None}, "needs 'member' and 'sha256'"),
        (None, {"locator": "https://x/file"}, r"needs '\{path\}'"),
        (None, {"revision": "main"}, "must be pinned"),
    ],
)
def test_a_contradictory_entry_is_refused(
    catalogue: Catalogue, files: list[dict[str, Any]] | None, source: dict[str, Any], words: str
) -> None:
    values = catalogue["places365_resnet50"].model_dump()
    values["files"] = files or values["files"]
    values["source"] = {**values["source"], **source}
    with pytest.raises(ValueError, match=words):
        CatalogueEntry.model_validate(values)
