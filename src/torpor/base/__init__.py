"""What every layer may use: errors, log, typed ids, owned descriptors.  Knows nothing of processes or images."""
