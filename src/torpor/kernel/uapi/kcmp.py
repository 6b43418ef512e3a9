"""``linux/kcmp.h``."""

KCMP_EPOLL_TFD = 7
