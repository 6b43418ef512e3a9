"""What a task has in registers besides the general ones: FPU, SSE, AVX, ... in the kernel's uncompacted layout."""

#: The register set of PTRACE_GETREGSET that holds all of it (NT_X86_XSTATE).
NOTE = 0x202
