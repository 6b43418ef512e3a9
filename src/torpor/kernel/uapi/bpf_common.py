"""``linux/bpf_common.h``."""

BPF_MAXINSNS = 4096
