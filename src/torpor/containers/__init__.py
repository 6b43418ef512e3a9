"""Podman, runc, Docker, containerd and LXC as a user names them: names, archives, and setting torpor up for them.

Containers are checkpointed and restored by their engines' own commands, which call the ``criu`` that they find; this
layer knows the commands and what comes out of them, and nothing of the engine's inside.
"""
