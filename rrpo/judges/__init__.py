"""Evaluation: emotion judges, phone recognisers, artefact detectors, their metrics, and the scoring of stored samples."""
