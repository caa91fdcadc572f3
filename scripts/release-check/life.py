#!/usr/bin/env python3
"""Kills and interrupts a run of a whole recipe in turn, at random moments, and resumes it each time; in the end it must have
the bytes of an undisturbed one, which is run first and timed.

    life.py [TRIES] [SEED]

TRIES times each. RECIPE is the default one unless it is set; WHOLE is an undisturbed run of it that is there already, without
which this takes more than twice as long as a run.
"""
import signal
import time
from runs import *


def sitting(run):
    """Starts or resumes the run; its output goes where it can be read if something is wrong."""
    what = ["--resume", run] if has_begun(run) else [os.environ.get("RECIPE", "microcosm"), "--out", run]
    with open(f"{run}.log", "ab") as log:
        return subprocess.Popen([SMOLTER, "train", *map(str, what), "--device", DEVICE], stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log)


def main():
    tries, rng, base = begin(10)
    signal.signal(signal.SIGINT, signal.default_int_handler)    # which a job in the background ignores, and its children do
    whole = pathlib.Path(os.environ.get("WHOLE", base / "whole"))
    if "WHOLE" not in os.environ:
        assert sitting(whole).wait() == 0, f"see {whole}.log"
    length = (whole / "metrics.jsonl").stat().st_mtime - (whole / "begun.json").stat().st_mtime
    expected = results(whole)
    print(f"undisturbed: {length:.0f} s", flush=True)
    run, last = base / "disturbed", 0
    for i, moment in enumerate(sorted(rng.random() * length for _ in range(2 * tries))):
        process = sitting(run)
        time.sleep(max(moment - last, 1))
        last = moment
        how = [signal.SIGKILL, signal.SIGINT][i % 2]
        process.send_signal(how)
        code = process.wait()
        steps = (run / "metrics.jsonl").read_text().count("\n") if (run / "metrics.jsonl").exists() else 0
        print(f"{how.name} at {moment:.0f} s, step {steps}: exit {code}", flush=True)
    code = sitting(run).wait()
    differ, log = differences(expected, run), pathlib.Path(f"{run}.log").read_text(errors="replace")
    bad = int(bool(code or differ or leftovers(run) or panicked(log)))
    if bad:
        print(f"BAD {run}: exit {code}, differs in {differ}, left {leftovers(run)}", flush=True)
    end("life", 2 * tries, bad)


main()
