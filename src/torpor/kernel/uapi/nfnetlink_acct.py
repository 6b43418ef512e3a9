"""``linux/netfilter/nfnetlink_acct.h``."""

NFACCT_NAME = 1
NFNL_MSG_ACCT_GET = 1
