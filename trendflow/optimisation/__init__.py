"""Faster variants of the models: made from a reference, measured against it, published only when they hold."""
