"""The composition root: the processes of `moorage serve`, and the only place that names concrete adapters."""
