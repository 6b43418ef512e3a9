"""``linux/netfilter/nfnetlink_conntrack.h``."""

CTA_PROTOINFO_TCP = 1
CTA_PROTOINFO = 4
