"""aarch64, as far as user mode goes: nothing has run it on a kernel of that machine yet."""
