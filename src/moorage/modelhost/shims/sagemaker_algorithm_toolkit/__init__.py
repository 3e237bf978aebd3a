"""As in sagemaker-algorithm-toolkit, for scripts that import it."""
