"""The ``criu`` command: criu(8)'s words, log and exit codes, torpor's engine."""
