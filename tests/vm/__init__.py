"""Whole machines with other kernels, under qemu: what the tests of kernels, systemd and security modules run in."""
