"""``linux/rseq.h``."""

RSEQ_FLAG_UNREGISTER = 1
