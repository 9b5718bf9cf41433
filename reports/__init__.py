"""Write tables, figures and pages from MLflow records alone; no training code is imported."""
