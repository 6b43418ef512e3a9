"""Kernel objects: one kind a file, dump and restore beside each other.  The order between them is the engine's."""
