#!/bin/sh
# Checks and measures the adapter of this machine; builds nothing. The result lies in benches/results/, named by the
# adapter.
#   sh benches/device.sh [PROGRAM [ARGUMENTS OF smolter bench]]
# PROGRAM is target/release/smolter unless it is given.
set -eu
program=$(realpath "${1:-target/release/smolter}")
[ $# -eq 0 ] || shift
cd "$(dirname "$0")"
mkdir -p results
"$program" doctor
"$program" bench --json results "$@"
