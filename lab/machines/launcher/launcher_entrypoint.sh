#!/bin/sh
# A stub of Screwdriver's launcher: what a build pod's container runs, with its script as the only argument.
exec /bin/sh -c "$1"
