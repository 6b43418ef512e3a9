"""``linux/mempolicy.h``."""

MPOL_DEFAULT = 0
MPOL_F_ADDR = 0x2
