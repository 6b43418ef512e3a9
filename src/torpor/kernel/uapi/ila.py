"""``linux/ila.h``."""

ILA_CMD_GET = 3
