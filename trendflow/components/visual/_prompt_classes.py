"""Class probabilities of one prompt set, from the probabilities of its prompts.

Method: the class of a prompt is its name up to a slash; the probability of a class is the sum over its prompts. A set
is near uniform when the mean over the frames of −Σ p ln p / ln P, over its P prompts, exceeds `near_uniform_entropy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trendflow.components.base import Upstream
from trendflow.components.visual import _summary
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.prompt_bank import prompt_class
from trendflow.contracts.thresholds import THRESHOLDS


@dataclass(frozen=True)
class PromptConstants:
    """Entropies as a share of their maximum."""

    near_uniform_entropy: float


PROMPT_LIMITS = THRESHOLDS.bind("prompt_probabilities", PromptConstants)


@dataclass(frozen=True)
class ClassProbabilities:
    """Probabilities of the classes of one prompt set, float64 `[N, classes]`; rows sum to 1."""

    names: tuple[str, ...]
    values: np.ndarray
    near_uniform: bool
    """The prompts do not tell the frames apart (mean entropy near its maximum); the set has no scalars then."""

    @classmethod
    def summed(cls, prompts: Sequence[str], probabilities: np.ndarray) -> ClassProbabilities:
        """From the prompt names of a set, `<class>` or `<class>/<variant>`, and their probabilities `[N, P]`."""
        exact = probabilities.astype(np.float64)
        classes = [prompt_class(name) for name in prompts]
        names = tuple(dict.fromkeys(classes))
        member = np.array([[name == own for name in names] for own in classes], dtype=np.float64)
        uniform = _summary.mean(normalised_entropy(exact)) > PROMPT_LIMITS.near_uniform_entropy
        return cls(names, exact @ member, uniform)

    def of(self, name: str) -> np.ndarray:
        """One class, `[N]`. Raises `artifact_validation_failed` when the set lacks it."""
        if name not in self.names:
            raise TrendFlowError("artifact_validation_failed", f"No prompt stands for the class {name!r}.")
        return self.values[:, self.names.index(name)]


def class_probabilities(clip: Upstream | None, prompt_set: str) -> ClassProbabilities | None:
    """Classes of `<prompt_set>_probs` in the order of their first prompts; None when there are no probabilities."""
    if clip is None or f"{prompt_set}_probs" not in clip.arrays:
        return None
    return ClassProbabilities.summed(clip.arrays[f"{prompt_set}_prompts"].tolist(), clip.arrays[f"{prompt_set}_probs"])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in the precision of `logits`."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def normalised_entropy(probabilities: np.ndarray) -> np.ndarray:
    """−Σ p ln p ÷ ln(classes) of rows `[N, classes]`, in [0, 1]."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -(probabilities * logs).sum(axis=1) / np.log(probabilities.shape[1])


def top_classes(probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` likeliest classes of each row, best first and equal ones in class order: int32 ids, float32."""
    ids = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return ids.astype(np.int32), np.take_along_axis(probabilities, ids, axis=1).astype(np.float32)
