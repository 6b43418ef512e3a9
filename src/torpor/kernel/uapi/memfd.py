"""``linux/memfd.h``."""

MFD_ALLOW_SEALING = 0x2
MFD_HUGETLB = 4
