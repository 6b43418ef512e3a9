"""States and marks of unix sockets, as kernel and images number them."""

from __future__ import annotations

ESTABLISHED, CLOSE, LISTEN = 1, 7, 10
#: ``uflags``: a socket outside of the tree that one inside is connected to; one that torpor's own service had.
EXTERN, SERVICE, CALLBACK = 1, 2, 4
