"""MLflow -> tables and figures. Reads the tracking store alone; imports `ablations`' leaves, never training code."""
