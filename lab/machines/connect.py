"""ssh's ProxyCommand with ProxyUseFdpass: hands ssh a connection to a Unix socket. Usage: connect SOCKET"""

import array
import socket
import sys

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
socket.socket(fileno=1).sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))])
