"""Hosts of their own: network namespaces of this machine, and between them a network that delays,
loses and holds back packets on order.

The network is this process: a host's only way out is a TUN device, whose packets are read, and
written to the device of the host that they are for. That takes root and `/dev/net/tun`, and nothing
of the kernel's queueing disciplines or packet filters, which many kernels lack. Nothing of it has a
name outside of its namespace, so that nothing is left of it when this process dies.
"""

import asyncio
import ctypes
import fcntl
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field

TUN = "/dev/net/tun"
PROGRAMS = ("ip", "nsenter", "unshare", "mount", "sh")  # of iproute2, util-linux and the system
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET_BYTES = 65536
# Of one host at a time, so that no other waits for long.
MAX_PACKETS = 64
IP_SECONDS = 10.0
IPV4, DESTINATION = 4, slice(16, 20)
LOCALHOST = "127.0.0.1"


@dataclass
class Way:
    """What becomes of packets one way between a host and the network, and how many went it."""

    delay_seconds: float = 0.0
    loss: float = 0.0  # the share of packets that are lost; with 1 it is cut
    num_carried: int = 0
    num_lost: int = 0

    def takes(self, draw: random.Random) -> bool:
        """Whether the next packet is not lost."""
        is_taken = not self.loss or draw.random() >= self.loss
        self.num_carried += is_taken
        self.num_lost += not is_taken
        return is_taken


class Host:
    """A network namespace with one address. It lives as long as its thread, in which all that is to
    be of the namespace is made.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.out, self.into = Way(), Way()
        self._inside = ThreadPoolExecutor(max_workers=1)
        try:
            self.device = self._inside.submit(_enter_new_namespace, address).result()
            tid = self._inside.submit(threading.get_native_id).result()
        except BaseException:
            self._inside.shutdown()
            raise
        self._namespace = f"/proc/{os.getpid()}/task/{tid}/ns/net"

    def cut(self) -> None:
        """Lose every packet, both ways, without a word to anybody."""
        self.out.loss = self.into.loss = 1.0

    def restore(self) -> None:
        """Carry every packet at once, both ways, from now on."""
        for way in (self.out, self.into):
            way.loss = way.delay_seconds = 0.0

    def command(self, *command: str) -> tuple[str, ...]:
        """The command that runs this one on the host."""
        return ("nsenter", f"--net={self._namespace}", *command)

    def socket(self) -> socket.socket:
        """One of the host's own."""
        return self._inside.submit(socket.socket).result()

    def change_address(self, address: str) -> None:
        """Leave the address that it had; what is connected there hears nothing any more."""
        lines = (f"address del {self.address}/24 dev wire", _address(address))
        self._inside.submit(_configure, lines).result()
        self.address = address

    def close(self) -> None:
        """Take the device and, once its processes have ended, the namespace away."""
        if self.device >= 0:
            os.close(self.device)
            self.device = -1
        self._inside.shutdown()


@dataclass
class Network:
    """The hosts by their addresses' bytes. Which packets are lost is drawn from a seed."""

    hosts: dict[bytes, Host] = field(default_factory=dict)
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, address: str) -> Host:
        """A host of this address, which reaches all others. Raises OSError where the machine
        does not allow it.
        """
        host = self.hosts[socket.inet_aton(address)] = Host(address)
        asyncio.get_running_loop().add_reader(host.device, self._carry_all_of, host)
        return host

    def move(self, host: Host, address: str) -> None:
        """Give it another address instead of the one that it has."""
        del self.hosts[socket.inet_aton(host.address)]
        host.change_address(address)
        self.hosts[socket.inet_aton(address)] = host

    def remove(self, host: Host) -> None:
        """Take it away."""
        del self.hosts[socket.inet_aton(host.address)]
        asyncio.get_running_loop().remove_reader(host.device)
        host.close()

    def _carry_all_of(self, host: Host) -> None:
        with suppress(BlockingIOError):
            for _ in range(MAX_PACKETS):
                self._carry(host, os.read(host.device, PACKET_BYTES))

    def _carry(self, host: Host, packet: bytes) -> None:
        target = self.hosts.get(packet[DESTINATION]) if packet[0] >> 4 == IPV4 else None
        if target is None or not (host.out.takes(self.draw) and target.into.takes(self.draw)):
            return
        seconds = host.out.delay_seconds + target.into.delay_seconds
        if seconds:
            asyncio.get_running_loop().call_later(seconds, _deliver, target, packet)
        else:
            _deliver(target, packet)


@asynccontextmanager
async def network() -> AsyncIterator[Network]:
    """A network without hosts; those that it is given are taken away at the end."""
    made = Network()
    try:
        yield made
    finally:
        for host in list(made.hosts.values()):
            made.remove(host)


@asynccontextmanager
async def reached(host: Host, port: int, at: str | None = None) -> AsyncIterator[str]:
    """An address of this machine that leads to a port of the host, where it listens on `at`; else
    on the host's own address.
    """
    loop = asyncio.get_running_loop()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError), host.socket() as connected:
            connected.setblocking(False)
            await loop.sock_connect(connected, (at or host.address, port))
            far_reader, far_writer = await asyncio.open_connection(sock=connected)
            with closing(far_writer):
                await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    async with asyncio.TaskGroup() as connections:
        tasks = []
        server = await asyncio.start_server(
            lambda *ends: tasks.append(connections.create_task(connect(*ends))), LOCALHOST, 0
        )
        try:
            yield f"{LOCALHOST}:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in tasks:
                task.cancel()


def what_forbids_hosts() -> str | None:
    """Why there can be no hosts on this machine, in a few words; None where there can be."""
    if lacking := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"there is no {', '.join(lacking)}"
    try:
        Host("10.0.0.1").close()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespace with a TUN device can be made: {error}"
    mount = ("unshare", "--mount", "mount", "--bind", "/etc/hosts", "/etc/hosts")
    if subprocess.run(mount, capture_output=True, timeout=IP_SECONDS, check=False).returncode:
        return "a process cannot have an /etc/hosts of its own"
    return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PACKET_BYTES):
        writer.write(data)
        await writer.drain()
    writer.close()


def _deliver(host: Host, packet: bytes) -> None:
    """A device that is full, or no more there, takes no packet, as any other."""
    if host.device >= 0:
        with suppress(OSError):
            os.write(host.device, packet)


def _enter_new_namespace(address: str) -> int:
    """Move the calling thread into a network namespace of its own, and say what its device is."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
        _configure(("link set lo up", "link set wire up", _address(address)))
    except BaseException:
        os.close(device)
        raise
    return device


def _address(address: str) -> str:
    return f"address add {address}/24 dev wire"


def _configure(lines: Sequence[str]) -> None:
    """Have `ip` follow these lines in the calling thread's namespace."""
    command, text = ("ip", "-batch", "-"), "".join(f"{line}\n" for line in lines)
    subprocess.run(command, input=text, text=True, check=True, timeout=IP_SECONDS)
