"""``linux/ioam6_genl.h``."""

IOAM6_CMD_DUMP_NAMESPACES = 3
IOAM6_CMD_DUMP_SCHEMAS = 6
