"""Object store, NPZ codec, result store and artifact index."""
