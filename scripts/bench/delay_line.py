#!/usr/bin/env python3
"""A wire between two network namespaces on which every packet takes MS milliseconds each way, for kernels without netem.

Each end is a TUN device, `delayed`, which is up with an address when this prints `ready`. It runs until it is ended. A wire
loses nothing while fewer than 10,000 packets wait to be read; how many it carries in a second is bound by this program.
"""
import argparse
import collections
import contextlib
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
CLONE_NEWNET = 0x40000000
DEVICE = "delayed"
MTU = 1500
QUEUE = 10_000  # packets in the kernel that this program has not read yet
BATCH = 64  # packets read from one end before a look at the other


def end(namespace, address):
    """The device in a namespace, as a file that reads and writes packets."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(file):
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {file.name}")

    with open("/proc/self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        enter(there)
        try:
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
            for words in (["address", "add", address, "dev", DEVICE],
                          ["link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", str(QUEUE), "up"]):
                subprocess.run(["ip", *words], check=True)
        finally:
            enter(home)
    return file


def carry(ends, delay):
    """Carries packets from each end to the other, `delay` seconds later, in their order."""
    other = dict(zip(ends, reversed(ends)))
    under_way = collections.deque()
    while True:
        wait = max(0, under_way[0][0] - time.monotonic()) if under_way else None
        for source in select.select(ends, [], [], wait)[0]:
            with contextlib.suppress(BlockingIOError):
                for _ in range(BATCH):
                    under_way.append((time.monotonic() + delay, other[source], os.read(source, 2 * MTU)))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, target, packet = under_way.popleft()
            os.write(target, packet)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="example: scripts/bench/delay_line.py home 10.9.0.1/30 away 10.9.0.2/30 10")
    parser.add_argument("one", metavar="NAMESPACE", help="network namespace of one end")
    parser.add_argument("one_address", metavar="ADDRESS/BITS", help="its address on the wire")
    parser.add_argument("other", metavar="NAMESPACE", help="network namespace of the other end")
    parser.add_argument("other_address", metavar="ADDRESS/BITS", help="its address on the wire")
    parser.add_argument("delay", metavar="MS", type=float, help="how long a packet takes, milliseconds")
    args = parser.parse_args()
    ends = [end(args.one, args.one_address), end(args.other, args.other_address)]
    print("ready", flush=True)
    carry(ends, args.delay / 1000)


if __name__ == "__main__":
    main()
