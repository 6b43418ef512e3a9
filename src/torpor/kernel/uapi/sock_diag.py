"""``linux/sock_diag.h``."""

SOCK_DIAG_BY_FAMILY = 20
