"""Unmodified clients of the API against a running server: `make conformance`. See README.md."""
