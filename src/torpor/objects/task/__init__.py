"""What a task is besides its memory and files: registers, signals, credentials, timers, limits, scheduling.

An aspect is a module with ``dump(thread, core, batch)`` and ``restore(thread, core, batch)`` (or the same for a
process): both only *add* calls to a batch that the engine runs once for all aspects; answers are picked up by
``batch.then``.  The tables of aspects, in order, are in :mod:`torpor.objects.task.table`.
"""
