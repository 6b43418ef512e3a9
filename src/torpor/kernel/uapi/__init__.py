"""Numbers of Linux, a module for each header of its uapi; a test compares every one with the system's headers.

A name is the header's own, and the first line of a module says which headers it is of.  Only numbers that are the same
on all machines: the others are ``kernel/arch``'s, or ``os`` and the like have them.
"""
