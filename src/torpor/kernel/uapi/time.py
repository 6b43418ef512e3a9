"""``linux/time.h``."""

CLOCK_REALTIME = 0
CLOCK_REALTIME_ALARM = 8
