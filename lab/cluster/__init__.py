"""One lab: the control plane, the nodes that kwok simulates, the certificates, and the stub of the queue worker."""
