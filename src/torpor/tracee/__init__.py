"""Control of another task: seize, remote batches, its memory, its descriptors.  Knows no image.

The only place that calls ptrace.  Everything borrowed from a task is a ``with`` that gives it back.
"""
