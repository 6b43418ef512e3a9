"""Namespaces that a tree has of its own."""
