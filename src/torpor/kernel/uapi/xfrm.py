"""``linux/xfrm.h``."""

XFRM_MSG_GETPOLICY = 0x15
XFRM_MSG_GETSA = 0x12
