"""``linux/signal.h``."""

SS_DISABLE = 2
