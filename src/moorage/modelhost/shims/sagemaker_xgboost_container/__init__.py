"""As in sagemaker-xgboost-container, for scripts that import it."""
