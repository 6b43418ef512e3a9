"""What Linux is: constants by header, structures, the system call boundary, /proc parsers, feature probes.

Knows nothing of images.  Nothing here keeps state.
"""
