"""The tests' own store, whatever server the caller's shell names."""

import os

os.environ.pop("MLFLOW_TRACKING_URI", None)
