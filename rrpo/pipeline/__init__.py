"""Stages stored by content hash: keys, claims, checkpoints, executors, provenance."""
