"""Has fork_server.py run what `python ARGUMENTS` would. Every task of a playbook starts it, so it imports next to nothing."""

import _socket
import posix
import sys

server, arguments = sys.argv[1], sys.argv[2:]
if arguments and arguments[0].startswith("-"):
    posix.execv(sys.executable, [sys.executable, *arguments])
connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
connection.connect(server)
message = repr((arguments, posix.getcwd(), posix.environ)).encode()
descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
connection.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
connection.recv(64)
code = connection.recv(1)
posix._exit(code[0] if code else 137)
