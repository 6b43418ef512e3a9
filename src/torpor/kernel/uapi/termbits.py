"""``asm-generic/termbits.h``."""

ICANON = 2
VEOF = 4
VEOL = 11
VEOL2 = 16
VMIN = 6
VTIME = 5
