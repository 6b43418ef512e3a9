"""``linux/if_addrlabel.h``."""

IFAL_ADDRESS = 1
IFAL_LABEL = 2
