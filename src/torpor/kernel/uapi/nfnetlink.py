"""``linux/netfilter/nfnetlink.h``."""

NFNL_SUBSYS_IPSET = 6
