"""``linux/fou.h``."""

FOU_CMD_GET = 3
