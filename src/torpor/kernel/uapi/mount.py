"""``linux/mount.h``."""

MOVE_MOUNT_SET_GROUP = 0x100
