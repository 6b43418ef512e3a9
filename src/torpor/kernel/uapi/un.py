"""``linux/un.h``, ``linux/sockios.h``."""

SIOCUNIXFILE = 0x89E0
