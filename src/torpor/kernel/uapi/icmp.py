"""``linux/icmp.h``."""

ICMP_FILTER = 1
