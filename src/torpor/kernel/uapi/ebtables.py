"""``linux/netfilter_bridge/ebtables.h``."""

EBT_SO_GET_INFO = 128
EBT_SO_GET_ENTRIES = 129
EBT_SO_GET_INIT_INFO = 130
EBT_SO_GET_INIT_ENTRIES = 131
