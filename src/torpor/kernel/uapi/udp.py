"""``linux/udp.h``."""

UDP_CORK = 1
UDP_ENCAP = 100
UDP_ENCAP_L2TPINUDP = 3
