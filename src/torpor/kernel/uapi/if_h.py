"""``linux/if.h``."""

IFF_UP = 1
