"""Fills a pool with a thin device: fill.py POOL DEVICE ID. One block of each chunk is written, which allocates the whole chunk."""

import os
import subprocess
import sys

pool, device, number = sys.argv[1:]
CHUNK = 512 * 1024


def dmsetup(*arguments):
    return subprocess.run(["dmsetup", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def status():
    return dmsetup("status", pool)


dmsetup("message", pool, "0", f"create_thin {number}")
# Larger than any pool of these tests.
dmsetup("create", device, "--table", f"0 41943040 thin /dev/mapper/{pool} {number}")
disk = os.open(f"/dev/mapper/{device}", os.O_WRONLY)
position = 0
while "out_of_data_space" not in status():
    if os.fork() == 0:
        # A write that finds no room waits for a minute, and cannot be ended before.
        for chunk in range(position, position + 64):
            os.pwrite(disk, b"x" * 4096, chunk * CHUNK)
        os.fsync(disk)
        os._exit(0)
    while "out_of_data_space" not in status():
        if os.waitpid(-1, os.WNOHANG)[0]:
            position += 64
            break
print(status())
