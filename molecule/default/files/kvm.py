"""Runs a guest of seven bytes under /dev/kvm, without an emulator: it writes one letter to a serial port and halts. Prints the letter."""

import ctypes
import fcntl
import mmap
import os
import struct

CREATE_VM, CREATE_VCPU, VCPU_MMAP_SIZE, RUN = 0xAE01, 0xAE41, 0xAE04, 0xAE80
SET_USER_MEMORY_REGION, GET_SREGS, SET_SREGS, SET_REGS = 0x4020AE46, 0x8138AE83, 0x4138AE84, 0x4090AE82
EXIT_IO, EXIT_HLT = 2, 5
# mov dx, 0x3f8; mov al, 'K'; out dx, al; hlt
CODE = bytes([0xBA, 0xF8, 0x03, 0xB0, ord("K"), 0xEE, 0xF4])
START = 0x1000

kvm = os.open("/dev/kvm", os.O_RDWR)
machine = fcntl.ioctl(kvm, CREATE_VM, 0)
memory = mmap.mmap(-1, 0x1000)
memory[: len(CODE)] = CODE
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
fcntl.ioctl(machine, SET_USER_MEMORY_REGION, struct.pack("IIQQQ", 0, 0, START, 0x1000, address))
cpu = fcntl.ioctl(machine, CREATE_VCPU, 0)
state = mmap.mmap(cpu, fcntl.ioctl(kvm, VCPU_MMAP_SIZE, 0))
# Real mode, with a code segment that begins at 0.
segments = bytearray(fcntl.ioctl(cpu, GET_SREGS, bytes(312)))
segments[0:8], segments[12:14] = bytes(8), bytes(2)
fcntl.ioctl(cpu, SET_SREGS, bytes(segments))
fcntl.ioctl(cpu, SET_REGS, struct.pack("18Q", *[0] * 16, START, 2))
output = b""
while True:
    fcntl.ioctl(cpu, RUN, 0)
    (reason,) = struct.unpack_from("I", state, 8)
    if reason == EXIT_HLT:
        break
    assert reason == EXIT_IO, f"exit reason {reason}"
    (offset,) = struct.unpack_from("Q", state, 40)
    output += state[offset : offset + 1]
print(output.decode())
