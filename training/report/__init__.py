"""The report of one training run: what was learned, from what, how well, and where it is no better than a formula."""

from training.report.page import render_training_report

__all__ = ["render_training_report"]
