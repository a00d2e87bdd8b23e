"""Programs that the lab and its nodes run: Go modules, npm packages, Debian packages, and the mirror of release archives."""
