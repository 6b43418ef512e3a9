"""``linux/udp.h``."""

UDP_CORK = 1
