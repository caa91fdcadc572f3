#!/usr/bin/env python3
"""Trains on a disk that another process fills and empties meanwhile, frees it, and resumes.

    disks.py [TRIES] [SEED]        as root, on Linux: mounts a tmpfs

A run must end well or with one line and exit code 1; resumed, it must have the bytes of an undisturbed one."""
import shutil
import subprocess
from runs import *

# Fills the disk to the last byte, waits, takes some away, and so on.
OTHER = """
import os, random, sys, time
folder, rng, names = sys.argv[1], random.Random(sys.argv[2]), 0
open(folder + "/ready", "w").close()
while True:
    try:
        for _ in range(rng.randrange(1, 40)):
            names += 1
            with open(f"{folder}/{names}", "wb", 0) as file:
                size = rng.choice([100, 4096, 20000, 200000])
                while size > 0:
                    size -= file.write(bytes(min(size, 4096)))
    except OSError:
        pass
    time.sleep(rng.random() * 0.02)
    mine = os.listdir(folder)
    rng.shuffle(mine)
    for name in mine[:rng.randrange(len(mine) + 1)]:
        os.remove(f"{folder}/{name}")
    time.sleep(rng.random() * 0.02)
"""


def sitting(run, expected):
    """Trains or resumes while the disk is full at times: exit code, and what is wrong with that."""
    code, out, err = go_on(run)
    errors = [line for line in err.splitlines() if not line.startswith("warning:")]
    if panicked(err + out) or code not in (0, 1):
        return code, f"exit {code}: {err}"
    if code == 1 and (len(errors) != 1 or "No space" not in err):
        return code, f"not one line that names a full disk: {err}"
    differ = differences(expected, run) if code == 0 else []
    return code, f"exit 0, differs in {differ}" if differ else None


def attempt(disk, whole, expected, rng):
    run, noise = disk / "runs/run", disk / "noise"
    run.parent.mkdir()
    noise.mkdir()
    if rng.random() < 0.3:
        shutil.copytree(whole / ".tokens", run.parent / ".tokens")
    other = subprocess.Popen([sys.executable, "-c", OTHER, noise, str(rng.random())])
    while not any(noise.iterdir()) and other.poll() is None:
        pass
    try:
        for _ in range(rng.choice([1, 2, 3, 6])):
            code, problem = sitting(run, expected)
            if problem or code == 0:
                break
    finally:
        other.kill()
        other.wait()
    shutil.rmtree(noise)
    if problem:
        return problem
    code, _, err = go_on(run)
    differ = differences(expected, run)
    return f"with room again: exit {code}, differs in {differ}: {err}" if code or differ or panicked(err) else None


def main():
    tries, rng, base = begin(100)
    expected = undisturbed(base / "whole")
    disk = base / "disk"
    disk.mkdir()
    bad = 0
    for i in range(tries):
        size = rng.choice([1100, 1200, 1400, 1800])    # KiB: room for three checkpoints
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
        try:
            problem = attempt(disk, base / "whole", expected, rng)
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
        if problem:
            bad += 1
            print(f"BAD {i} ({size} KiB): {problem}", flush=True)
    end("full disks", tries, bad)


main()
