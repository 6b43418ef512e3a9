"""x86-64: system call numbers, registers, the signal frame and the call loop."""
