#!/usr/bin/env bash
# What takes too long for CI: kills, full disks and flipped bits against the release binary. Ends with 1 if
# anything is bad. Less is tried with fewer, such as: KILLS=60 DISKS=10 FLIPS=100 LIVES=0 scripts/release-check.sh
# LIVES kills and as many interruptions befall the default recipe, which takes more than twice as long as a run of it.
set -u
cd "$(dirname "$0")/release-check" || exit 1
export SMOLTER="${SMOLTER:-$PWD/../../target/release/smolter}" DEVICE="${DEVICE:-reference}"
if [ ! -x "$SMOLTER" ]; then
  echo "release-check: no $SMOLTER; run cargo build --release first, or set SMOLTER" >&2
  exit 1
fi
bad=0
python3 kills.py "${KILLS:-600}" || bad=1
if [ "$(id -u)" -eq 0 ]; then
  python3 disks.py "${DISKS:-100}" || bad=1
else
  echo "release-check: full disks were not tried: that mounts a tmpfs, as root" >&2
  bad=1
fi
for state in half early finished shared; do
  python3 flips.py "${FLIPS:-400}" 1 "$state" || bad=1
done
[ "${LIVES:-10}" -eq 0 ] || DEVICE="${LIFE_DEVICE:-auto}" python3 life.py "${LIVES:-10}" || bad=1
[ "$bad" -eq 0 ] && echo "release-check: all is well"
exit "$bad"
