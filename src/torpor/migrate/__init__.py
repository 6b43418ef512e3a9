"""Moving what runs to another host: what the two sides say to each other, and in which order each of them gives up.

What a dump and a restore are is the engine's; containers and their engines are known to the layers below alone.
docs/internals/migration.md
"""
