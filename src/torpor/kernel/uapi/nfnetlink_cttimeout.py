"""``linux/netfilter/nfnetlink_cttimeout.h``."""

CTA_TIMEOUT_NAME = 1
IPCTNL_MSG_TIMEOUT_GET = 1
