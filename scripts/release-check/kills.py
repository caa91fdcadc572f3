#!/usr/bin/env python3
"""Kills a run at chosen writes, also while it resumes; in the end it must have the bytes of an undisturbed one.

    kills.py [TRIES] [SEED]        needs a C compiler (cc) and Linux
"""
import shutil
import subprocess
from runs import *


def main():
    tries, rng, base = begin(600)
    shim, log = base / "shim.so", base / "log"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", shim, HERE / "shim.c", "-ldl"], check=True)

    def killed(place, number, mode):
        return {"LD_PRELOAD": str(shim), "SHIM_DIR": str(place), "SHIM_N": str(number), "SHIM_MODE": mode,
                "SHIM_LOG": str(log)}

    expected = undisturbed(base / "whole")
    train(base / "count/run", env=killed(base / "count", 0, "before"))
    calls = len(log.read_text().splitlines())
    bad = kills = 0
    for i in range(tries):
        place = base / str(i)
        run = place / "run"
        if rng.random() < 0.3:    # tokens of an earlier run, to be shared
            shutil.copytree(base / "whole/.tokens", place / ".tokens")
        # The first kill goes through the run evenly; more may follow while it resumes.
        number, history, problem = 1 + i * calls // tries, [], None
        for _ in range(1 + rng.choice([0, 1, 1, 2, 4])):
            mode = rng.choice(["before", "half", "after"])
            log.write_text("")
            code, _, err = go_on(run, env=killed(place, number, mode))
            history.append(f"{mode} {log.read_text().strip()}: {code}")
            if code != -9:
                problem = f"exit {code}: {err}" if code else None
                break
            kills += 1
            number = int(calls ** rng.random()) + 1
        if not problem:
            code, _, err = go_on(run)
            differ, left = differences(expected, run), leftovers(place)
            if code or differ or left or panicked(err):
                problem = f"exit {code}, differs in {differ}, left {left}: {err}"
        if problem:
            bad += 1
            print(f"BAD {place}: {history}: {problem}", flush=True)
        else:
            shutil.rmtree(place)
    print(f"{kills} kills among {calls} calls")
    end("kills", tries, bad)


main()
