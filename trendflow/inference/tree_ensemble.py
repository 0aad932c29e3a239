"""Trees of scikit-learn's histogram gradient boosting as plain arrays.

scikit-learn itself stores models by pickle only, which executes code on reading. The arrays of the trees are all a
prediction needs; they live in the strict NPZ format of this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.npz import decode, encode

FORMAT = "tree_ensemble_v1"
NUMERIC = -1
NODE_FIELDS = ("value", "feature", "threshold", "missing_left", "left", "right", "is_leaf")


def one_hot(matrix: np.ndarray, source: np.ndarray, code: np.ndarray) -> np.ndarray:
    """[rows, inputs]: input i is column `source[i]`, or whether that column equals the category `code[i]`."""
    columns = matrix[:, source]
    return np.where(code == NUMERIC, columns, columns == code)


@dataclass(frozen=True)
class TreeEnsemble:
    """A sum of regression trees over one-hot inputs.

    `source`, `code` int64 [inputs]: see `one_hot`. `roots` int64 [trees]: position of each tree's first node.
    `nodes`: flat arrays of equal length, `left` and `right` being positions in them.
    """

    baseline: float
    n_features: int
    source: np.ndarray
    code: np.ndarray
    roots: np.ndarray
    nodes: Mapping[str, np.ndarray]

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """float64 [rows] for `matrix` [rows, features]."""
        inputs = one_hot(matrix, self.source, self.code)
        result = np.full(len(matrix), self.baseline)
        for root in self.roots:  # in the order of training, so that sums round as they did there
            result += self._leaves(inputs, int(root))
        return result

    def _leaves(self, inputs: np.ndarray, root: int) -> np.ndarray:
        nodes = self.nodes
        at = np.full(len(inputs), root)
        while True:
            inner = np.flatnonzero(~nodes["is_leaf"][at])
            if not len(inner):
                return nodes["value"][at]
            here = at[inner]
            values = inputs[inner, nodes["feature"][here]]
            left = np.where(np.isnan(values), nodes["missing_left"][here], values <= nodes["threshold"][here])
            at[inner] = np.where(left, nodes["left"][here], nodes["right"][here])

    def to_bytes(self) -> bytes:
        arrays = {**self.nodes, "source": self.source, "code": self.code, "roots": self.roots}
        return encode(arrays, {"format": FORMAT, "baseline": self.baseline, "n_features": self.n_features})

    @classmethod
    def from_bytes(cls, data: bytes) -> TreeEnsemble:
        """Raises `artifact_validation_failed` for a file that is none or whose trees point outside their arrays."""
        arrays, meta = decode(data)
        if meta.get("format") != FORMAT or set(arrays) != {*NODE_FIELDS, "source", "code", "roots"}:
            raise TrendFlowError("artifact_validation_failed", "The file holds no tree ensemble.", format=FORMAT)
        made = cls(
            baseline=float(meta["baseline"]),
            n_features=int(meta["n_features"]),
            source=arrays["source"],
            code=arrays["code"],
            roots=arrays["roots"],
            nodes={name: arrays[name] for name in NODE_FIELDS},
        )
        if not made._sound():
            raise TrendFlowError("artifact_validation_failed", "The trees of the model point outside their arrays.")
        return made

    def _sound(self) -> bool:
        nodes, count = self.nodes, len(self.nodes["value"])
        if any(array.shape != (count,) for array in nodes.values()) or self.source.shape != self.code.shape:
            return False
        inner = ~nodes["is_leaf"]
        position = np.arange(count)[inner]
        # A child stands after its parent, so every walk ends.
        children = all(
            ((nodes[side][inner] > position) & (nodes[side][inner] < count)).all() for side in ("left", "right")
        )
        return bool(
            children
            and _within(nodes["feature"][inner], len(self.source))
            and _within(self.source, self.n_features)
            and _within(self.roots, count)
        )


def _within(positions: np.ndarray, size: int) -> bool:
    return bool(((positions >= 0) & (positions < size)).all())
