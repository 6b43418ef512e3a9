"""The image side of aarch64."""
