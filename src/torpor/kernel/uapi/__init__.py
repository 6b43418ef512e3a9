"""Numbers of Linux, a module for each header of its uapi; a test compares every one with the system's headers.

A name is the header's own.  What ``os``, ``socket``, ``errno`` and the like have already is not repeated here, unless
importing them costs more than the engine's path can bear.
"""
