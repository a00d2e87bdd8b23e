#!/bin/sh
# A stub of Screwdriver's launcher: a build that writes to its root disk and takes a while, by its number. Arguments: TOKEN API STORE TIMEOUT BUILD UI
set -e
echo "build $5 on $NODE_ID, kernel $(uname -r), runtime class ${SD_RUNTIME_CLASS:-none}"
dd if=/dev/zero of=/artifact bs=65536 count=16 2>/dev/null
sleep $((15 + $5 % 5 * 10))
rm /artifact
echo "build $5 is over"
