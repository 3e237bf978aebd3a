"""`kill -9` of random processes of a whole server under load: what `python -m tests.faults.storm` runs.

`model` is what the instances run and what its answers must be, `victims` finds and kills, `clients` are the load,
`remains` is what a server may leave behind, `__main__` puts them together.
"""
