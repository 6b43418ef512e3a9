"""Namespaces that a tree has for itself: uts, ipc, mount; the pid namespace is made by clone alone."""
