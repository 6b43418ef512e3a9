"""``linux/if_arp.h``."""

ARPHRD_ETHER = 1
ARPHRD_NONE = 0xFFFE
