"""``linux/icmpv6.h``."""

ICMPV6_FILTER = 1
