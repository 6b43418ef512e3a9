"""``linux/sock_diag.h``."""

SOCK_DIAG_BY_FAMILY = 20
SOCK_DESTROY = 21
