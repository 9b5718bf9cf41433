"""Record cells in MLflow and read them back."""
