"""``linux/l2tp.h``."""

L2TP_CMD_TUNNEL_GET = 4
