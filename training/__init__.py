"""From a dataset to models whose numbers can be trusted: splits, baselines, comparators, evaluation.

The second code location. It reads dataset folders and writes training run folders; it needs no media library.
"""

TRAINER_VERSION = "1.1.0"
"""How a reader calls the trainer. What tells two programs of one version apart is `training.program.trainer_digest`."""
