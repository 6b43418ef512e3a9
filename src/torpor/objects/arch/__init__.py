"""What images say of the machine, and of what only it has: the counterpart of ``kernel/arch``.

``core``, ``cpu``, ``switches`` and ``uncarried`` are those of this machine.
"""
