"""Machines that become build nodes: over SSH, as containers of systemd-nspawn or virtual machines, and how one joins a lab."""
