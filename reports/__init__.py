"""Tables and figures from MLflow alone. Imports no training code."""
