"""``linux/nsfs.h``."""

NS_GET_USERNS = 0xB701
