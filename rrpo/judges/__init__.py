"""Who measures: emotion judges, phone recognisers, artefact detectors, the metrics made of them, the scoring of stored samples."""
