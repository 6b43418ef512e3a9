"""``linux/seg6_genl.h``."""

SEG6_ATTR_DST = 1
SEG6_CMD_DUMPHMAC = 2
SEG6_CMD_GET_TUNSRC = 4
