"""What a task has in registers besides the general ones: ``struct user_fpsimd_state``.

SVE's and SME's registers, and pointer authentication keys, have register sets of their own, which are not read yet.
"""

#: The register set of PTRACE_GETREGSET that holds it (NT_PRFPREG).
NOTE = 2
SIZE = 528
