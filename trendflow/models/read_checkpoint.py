"""Child process of `checkpoint`: turns a torch checkpoint into plain arrays.

A torch checkpoint is a pickle. `weights_only=True` admits tensors and nothing that runs code, and this process, which
imports nothing of the program and inherits no environment, is all an exploit of the reader would reach. A training
checkpoint holds its tensors under `state_dict`; the prefix `module.` of a model trained on several devices is dropped.

A TorchScript archive holds a program besides the tensors. It is not loaded as one: its pickle is read with classes that
only keep what they are given, and arrays come from the raw storages of the archive. Needs no torch.

Usage: python -I read_checkpoint.py <checkpoint.pth> <arrays.npz>
"""

from __future__ import annotations

import math
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_STORAGES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "|i1",
    "torch.ByteStorage": "|u1",
    "torch.BoolStorage": "|b1",
}
_LISTS = {f"torch.jit._pickle.build_{kind}list" for kind in ("int", "double", "bool", "tensor")}


class Module:
    """Stands for any class of the archive's program; keeps the attributes of the object."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class TorchScriptUnpickler(pickle.Unpickler):
    """Reads `data.pkl` of a TorchScript archive. Raises `pickle.UnpicklingError` for any other class or function."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path.startswith("__torch__."):
            return Module
        if path in _STORAGES:
            return _STORAGES[path]
        if path in _LISTS:
            return list
        known = {
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch.jit._pickle.restore_type_tag": _untagged,
            "collections.OrderedDict": OrderedDict,
        }
        if path not in known:
            raise pickle.UnpicklingError(f"{path} is no part of a module")
        return known[path]

    def persistent_load(self, pid: tuple[str, str, str, str, int]) -> np.ndarray:
        """A storage, one-dimensional. The device it was saved from does not matter."""
        import numpy as np

        _, dtype, key, _, _ = pid
        return np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), dtype)


def _tensor(storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    """A view of a storage; offset and stride count elements.

    Raises `pickle.UnpicklingError` beyond its end, and where a tensor has more elements than its storage: strides of 0
    make a file of any size out of one number.
    """
    from numpy.lib.stride_tricks import as_strided

    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min((offset, *stride), default=0) < 0 or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    if math.prod(size) > len(storage):
        raise pickle.UnpicklingError("a tensor repeats what its storage holds once")
    steps = [step * storage.itemsize for step in stride]
    return as_strided(storage[offset:], size, steps, writeable=False)


def _untagged(value: Any, _: str) -> Any:
    return value


def _named_tensors(module: Module, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Parameters and buffers of a module and its submodules by their dotted names."""
    import numpy as np

    for name, value in vars(module).items():
        if isinstance(value, Module):
            yield from _named_tensors(value, f"{prefix}{name}.")
        elif isinstance(value, np.ndarray):
            yield prefix + name, value


def _torchscript_root(source: str) -> str | None:
    """The folder of a TorchScript archive inside its zip file; None for every other checkpoint."""
    if not zipfile.is_zipfile(source):
        return None
    with zipfile.ZipFile(source) as archive:
        # Only archives with a program have constants of that program.
        roots = [name.removesuffix("/constants.pkl") for name in archive.namelist() if name.endswith("/constants.pkl")]
    return roots[0] if len(roots) == 1 else None


def main(source: str, target: str) -> None:
    import numpy as np

    tensors: dict[str, Any]
    root = _torchscript_root(source)
    if root is not None:
        with zipfile.ZipFile(source) as archive:
            tensors = dict(_named_tensors(TorchScriptUnpickler(archive, root).load()))
    else:
        import torch

        checkpoint = torch.load(source, map_location="cpu", weights_only=True)
        found = checkpoint.get("state_dict", checkpoint)
        tensors = {name.removeprefix("module."): tensor.numpy() for name, tensor in found.items()}
    np.savez(target, **tensors)


if __name__ == "__main__":
    main(*sys.argv[1:])
