"""TrendFlow: video features, training data and popularity forecasts as a Dagster asset graph."""

__version__ = "0.1.0"
