"""A test double of adbd: a loopback TCP server that the real adb client connects to.

It speaks ADB's own protocol (packages/modules/adb/protocol.txt and SYNC.TXT of AOSP): packets of
24 bytes of header and a payload, CNXN and AUTH to begin with, then streams: OPEN, OKAY, WRTE, CLSE.
Services: `shell:`, `shell,v2:`, `exec:` and `sync:` with STAT, SEND, RECV and LIST.

    real adb client -> real adb server -> TCP on 127.0.0.1 -> AdbdDouble
                                                                |- sync: files below its own root
                                                                '- shell: a real POSIX shell, whose
                                                                   commands are the phone's
                                                                   (`phone_double.Phone`)

A stream's process is not killed when the client closes the stream, as on a real device: who leaves
something running there has to end it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pty
import queue
import socket
import struct
import subprocess
import threading

from phone_double import Phone

_HEADER = struct.Struct("<4s5I")
_VERSION = 0x01000001  # From here on payloads carry no checksum.
_MAX_PAYLOAD = 256 * 1024
_AUTH_TOKEN, _AUTH_SIGNATURE = 1, 2
_SYNC_CHUNK = 64 * 1024
_STDOUT, _EXIT = 1, 3  # Packet kinds of shell,v2.


class AdbdDouble:
    """One device on a port of its own."""

    def __init__(self, phone: Phone) -> None:
        """Listens at once; `close` ends everything."""
        self.phone = phone
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._connections: list[_Connection] = []
        self._closed = False
        phone.on_unplug = self.unplug
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def serial(self) -> str:
        """What the client calls it."""
        return f"127.0.0.1:{self.port}"

    def unplug(self) -> None:
        """Breaks every connection; whether it can be reached again is the phone's affair."""
        for connection in list(self._connections):
            connection.close()

    def close(self) -> None:
        """Stops listening, breaks connections, ends the phone's processes."""
        self._closed = True
        # Wakes the accepting thread, which close() alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.unplug()
        self.phone.end_processes()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.phone.unreachable:
                client.close()
                continue
            connection = _Connection(client, self.phone)
            self._connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """A host that has connected: reads packets and hands them to their streams."""

    def __init__(self, client: socket.socket, phone: Phone) -> None:
        self._socket = client
        self._phone = phone
        self._send_lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._next_id = 1

    def serve(self) -> None:
        try:
            while True:
                command, arg0, arg1, payload = self._receive()
                self._handle(command, arg0, arg1, payload)
        except OSError:
            self.close()

    def send(self, command: bytes, arg0: int, arg1: int, payload: bytes = b"") -> None:
        magic = struct.unpack("<I", command)[0] ^ 0xFFFFFFFF
        header = _HEADER.pack(command, arg0, arg1, len(payload), sum(payload) & 0xFFFFFFFF, magic)
        with self._send_lock:
            self._socket.sendall(header + payload)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for stream in list(self._streams.values()):
            stream.closed_by_host()

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        command, arg0, arg1, length, _, _ = _HEADER.unpack(self._exactly(_HEADER.size))
        return command, arg0, arg1, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the host has gone")
            data += part
        return data

    def _handle(self, command: bytes, arg0: int, arg1: int, payload: bytes) -> None:
        if command == b"CNXN":
            self._greet()
        elif command == b"AUTH":
            # No signature fits. At the host's public key the question is on the screen, and
            # nobody answers it.
            if arg0 == _AUTH_SIGNATURE:
                self.send(b"AUTH", _AUTH_TOKEN, 0, os.urandom(20))
        elif command == b"OPEN":
            self._open(arg0, payload.rstrip(b"\0").decode())
        elif command in (b"OKAY", b"WRTE", b"CLSE") and arg1 in self._streams:
            stream = self._streams[arg1]
            if command == b"OKAY":
                stream.acknowledged()
            elif command == b"WRTE":
                stream.received(payload)
                self.send(b"OKAY", arg1, arg0)
            else:
                del self._streams[arg1]
                stream.closed_by_host()

    def _greet(self) -> None:
        if not self._phone.answers:
            return
        if not self._phone.authorized:
            self.send(b"AUTH", _AUTH_TOKEN, 0, os.urandom(20))
            return
        features = ",".join(self._phone.features)
        banner = f"device::ro.product.name=double;ro.product.model=double;features={features}"
        self.send(b"CNXN", _VERSION, _MAX_PAYLOAD, banner.encode())

    def _open(self, host_id: int, service: str) -> None:
        own_id, self._next_id = self._next_id, self._next_id + 1
        stream = _Stream(self, own_id, host_id)
        serve = _service(service, self._phone)
        if serve is None:
            self.send(b"CLSE", 0, host_id)
            return
        self._streams[own_id] = stream
        self.send(b"OKAY", own_id, host_id)

        def run() -> None:
            # The host may leave at any time, as may the phone.
            with contextlib.suppress(OSError):
                serve(stream)
                self.send(b"CLSE", own_id, host_id)

        threading.Thread(target=run, daemon=True).start()


class _Stream:
    """One OPENed stream. A WRTE has to be answered by OKAY before the next may be sent."""

    def __init__(self, connection: _Connection, own_id: int, host_id: int) -> None:
        self._connection = connection
        self._own_id, self._host_id = own_id, host_id
        self._inbox: queue.Queue[bytes] = queue.Queue()
        self._buffer = b""
        self._ready = threading.Semaphore(0)
        self.closed = threading.Event()

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _MAX_PAYLOAD):
            if self.closed.is_set():
                raise ConnectionError("the stream is closed")
            self._connection.send(
                b"WRTE", self._own_id, self._host_id, data[start : start + _MAX_PAYLOAD]
            )
            self._ready.acquire()

    def read(self, size: int) -> bytes:
        """Returns exactly `size` bytes."""
        while len(self._buffer) < size:
            part = self._inbox.get()
            if not part:
                raise ConnectionError("the stream is closed")
            self._buffer += part
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def acknowledged(self) -> None:
        self._ready.release()

    def received(self, payload: bytes) -> None:
        self._inbox.put(payload)

    def closed_by_host(self) -> None:
        self.closed.set()
        self._inbox.put(b"")
        self._ready.release()


def _service(name: str, phone: Phone):
    """Returns what serves the stream, or None if there is no such service."""
    kind, _, argument = name.partition(":")
    modes = kind.split(",")
    if modes[0] == "shell" and "v2" in modes:
        return (lambda s: _shell_v2(s, phone, argument)) if "shell_v2" in phone.features else None
    if modes[0] == "shell":
        return lambda s: _shell_on_terminal(s, phone, argument)
    if modes[0] == "exec":
        return lambda s: _exec(s, phone, argument)
    if modes[0] == "sync":
        return lambda s: _Sync(s, phone).serve()
    return None


def _lines(descriptor: int, process: subprocess.Popen, phone: Phone):
    """Yields what the process writes, by lines, in the phone's own paths."""
    buffer = b""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # EIO: a terminal whose other end is closed.
            part = b""
        buffer += part
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            yield phone.to_phone_text(line + b"\n")
        if not part:
            if buffer:
                yield phone.to_phone_text(buffer)
            process.wait()
            return


def _shell_v2(stream: _Stream, phone: Phone, command: str) -> None:
    process = phone.start(command, stdout=subprocess.PIPE)
    for line in _lines(process.stdout.fileno(), process, phone):
        if not stream.closed.is_set():
            stream.write(struct.pack("<BI", _STDOUT, len(line)) + line)
            phone.after_output()
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    stream.write(struct.pack("<BIB", _EXIT, 1, code & 0xFF))


def _shell_on_terminal(stream: _Stream, phone: Phone, command: str) -> None:
    """Before shell_v2: a terminal in between, so \\n becomes \\r\\n, and no exit code."""
    main, other = pty.openpty()
    try:
        process = phone.start(command, stdout=other, stdin=other)
        os.close(other)
        for line in _lines(main, process, phone):
            stream.write(line)
            phone.after_output()
    finally:
        os.close(main)


def _exec(stream: _Stream, phone: Phone, command: str) -> None:
    process = phone.start(command, stdout=subprocess.PIPE)
    for line in _lines(process.stdout.fileno(), process, phone):
        stream.write(line)


class _Sync:
    """The file transfer protocol, version 1: requests of a word, a length and a path."""

    def __init__(self, stream: _Stream, phone: Phone) -> None:
        self._stream = stream
        self._phone = phone

    def serve(self) -> None:
        requests = {b"STAT": self._stat, b"SEND": self._receive_file, b"RECV": self._send_file}
        requests[b"LIST"] = self._list
        while True:
            word, length = struct.unpack("<4sI", self._stream.read(8))
            if word == b"QUIT":
                return
            requests[word](self._stream.read(length).decode())

    def _path(self, remote: str) -> pathlib.Path:
        return self._phone.to_host_path(remote)

    def _fail(self, message: str) -> None:
        self._stream.write(struct.pack("<4sI", b"FAIL", len(message)) + message.encode())

    def _stat(self, remote: str) -> None:
        try:
            info = self._path(remote).stat()
            values = (info.st_mode, info.st_size, int(info.st_mtime))
        except OSError:
            values = (0, 0, 0)
        self._stream.write(struct.pack("<4s3I", b"STAT", *values))

    def _receive_file(self, target: str) -> None:
        remote, _, mode = target.rpartition(",")
        content = b""
        while True:
            word, length = struct.unpack("<4sI", self._stream.read(8))
            if word == b"DONE":  # The length is the time of modification.
                break
            content += self._stream.read(length)
        error = self._phone.store(self._path(remote), content, int(mode))
        if error:
            self._fail(error)
        else:
            self._stream.write(struct.pack("<4sI", b"OKAY", 0))

    def _send_file(self, remote: str) -> None:
        try:
            content = self._path(remote).read_bytes()
        except OSError as error:
            self._fail(f"open failed: {error.strerror}")
            return
        for start in range(0, len(content), _SYNC_CHUNK):
            part = content[start : start + _SYNC_CHUNK]
            self._stream.write(struct.pack("<4sI", b"DATA", len(part)) + part)
        self._stream.write(struct.pack("<4sI", b"DONE", 0))

    def _list(self, remote: str) -> None:
        folder = self._path(remote)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            info, name = entry.stat(), entry.name.encode()
            self._stream.write(
                struct.pack(
                    "<4s4I", b"DENT", info.st_mode, info.st_size, int(info.st_mtime), len(name)
                )
                + name
            )
        self._stream.write(struct.pack("<4s4I", b"DONE", 0, 0, 0, 0))
