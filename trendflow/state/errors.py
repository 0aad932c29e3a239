"""What a state manager refuses."""

from __future__ import annotations

from trendflow.contracts.errors import TrendFlowError


class IllegalTransition(TrendFlowError):
    """Something was about to leave its state for one that may not follow (`artifact_validation_failed`).

    Nothing was written; `detail` holds `subject`, `from` and `to`.
    """

    @classmethod
    def of(cls, subject: str, current: str | None, to: str | None) -> IllegalTransition:
        message = f"{subject} may not go from {current or 'nothing'} to {to or 'nothing'}."
        return cls("artifact_validation_failed", message, **{"subject": subject, "from": current, "to": to})


class Fenced(TrendFlowError):
    """Another manager of the same file has taken over (`cancelled`): stop the work and write nothing more."""

    @classmethod
    def by(cls, manager: str, own: int, current: int) -> Fenced:
        message = f"The manager {manager!r} was replaced by a later one; this one stops."
        return cls("cancelled", message, manager=manager, epoch=own, current=current)


def damaged(message: str) -> TrendFlowError:
    """A log or file that contradicts its contract."""
    return TrendFlowError("artifact_validation_failed", message)
