"""Who measures: emotion judges, phone recognisers, artefact detectors, their metrics, the scoring of stored samples."""
