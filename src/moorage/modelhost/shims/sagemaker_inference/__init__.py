"""As in sagemaker-inference, for scripts that import it."""
