#!/usr/bin/env bash
# Gives a Debian or Ubuntu machine without a GPU driver the software Vulkan adapter, so that the same kernels run
# on its CPU. Does nothing where a Vulkan driver is installed. Never fails: without any adapter smolter computes by
# its reference executor, and says so.
set -u
found=$(ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json 2>/dev/null | head -n 1)
if [ "$(uname)" != Linux ] || [ -n "$found" ]; then exit 0; fi
if ! command -v apt-get >/dev/null; then
  echo "setup: no Vulkan driver found; install your distribution's Mesa Vulkan drivers for more speed" >&2
  exit 0
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then as_root="sudo"; fi
echo "setup: no Vulkan driver found; installing the software adapter (mesa-vulkan-drivers)" >&2
if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq mesa-vulkan-drivers; } >/dev/null 2>&1; then
  echo "setup: could not install mesa-vulkan-drivers; smolter will use its reference executor" >&2
fi
exit 0
