"""As in sagemaker-huggingface-inference-toolkit, for scripts that import it."""
