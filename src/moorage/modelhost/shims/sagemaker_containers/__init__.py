"""As in sagemaker-containers, for scripts that import it."""
