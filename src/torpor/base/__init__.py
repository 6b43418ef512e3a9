"""What every layer may use: errors, log, owned descriptors.  Knows nothing of processes or images."""
