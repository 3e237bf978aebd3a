"""Moorage: a self-hosted inference platform that speaks the Amazon SageMaker AI Runtime API."""

__version__ = "0.1.0"
