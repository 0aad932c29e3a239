"""Contracts: identities, vocabularies, artifacts, manifests and schemas. Imports nothing else of TrendFlow."""
