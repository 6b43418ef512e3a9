"""Sockets.  Families are split by property; what all share is in ``make``, ``options`` and ``finish``.

Descriptors come across by pidfd_getfd(2), so a duplicate of each socket answers most questions; the kernel's tables
(``kernel.sock_diag``) are read only where there is a socket that needs them, once for the whole tree.
"""
