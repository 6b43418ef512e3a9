"""The image side of x86-64."""
