"""As in mms, for scripts that import it."""
