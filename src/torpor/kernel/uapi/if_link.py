"""``linux/if_link.h``."""

IFLA_BR_VLAN_DEFAULT_PVID = 39
