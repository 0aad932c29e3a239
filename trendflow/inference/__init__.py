"""From features and a trained model to a forecast."""
