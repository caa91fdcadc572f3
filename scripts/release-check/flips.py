#!/usr/bin/env python3
"""Flips one bit in a file of a run folder, then resumes the run and generates with it.

    flips.py [FLIPS] [SEED] [half|early|finished|shared]

half: stopped with checkpoints; early: before the first one; finished; shared: the bit is in token sets that a new run
shares. Good: the results are as if nothing had been, or the file is named. Bad: a panic, a hang, other results without
a word, an error that does not name the file."""
import collections
import shutil
from runs import *

STATE = next((word for word in sys.argv[1:] if word.isalpha()), "half")


def prepared(place):
    """A run in the state that is asked for, and its files."""
    run = place / "run"
    until = ["--until", "20"] if STATE in ("half", "early") else []
    code, _, err = train(run, *until)
    assert code == 0, err
    if STATE == "early":
        shutil.rmtree(run / "checkpoints")
        shutil.rmtree(place / ".tokens")
    base = place / ".tokens" if STATE == "shared" else run
    return sorted(path for path in base.rglob("*") if path.is_file())


def generate(run):
    if STATE in ("early", "shared"):
        return 0, "", ""
    return smolter("generate", run, "-p", "Once", "-n", "8", "--logprobs", "--device", DEVICE)


def decides(name):
    """Whether a difference in a result is one of the model: what is noted beside tokens decides nothing any more."""
    return name.endswith(".tokens") or name == "metrics" or name.startswith(("checkpoints/", "unreadable"))


def verdict(code, same, named, err):
    if panicked(err) or code not in (0, 1, 2):
        return "BAD panic or hang"
    if code == 0:
        return "same" if same else "told" if named else "BAD other results"
    return "refused" if named else "BAD refused, not named"


def main():
    flips, rng, base = begin(400)
    expected = undisturbed(base / "whole")
    place = base / "prepared"
    files = prepared(place)
    sound = generate(place / "run")
    counts = collections.Counter()
    for i in range(flips):
        # Small files as often as large ones at first.
        path = files[i % len(files)] if i < 3 * len(files) else rng.choice(files)
        data = bytearray(path.read_bytes())
        if not data:
            continue
        at = rng.randrange(min(len(data), rng.choice([64, 1024, len(data)])))
        data[at] ^= 1 << rng.randrange(8)
        case, name = base / "case", path.relative_to(place)
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(place, case)
        stamp = path.stat()
        (case / name).write_bytes(data)
        os.utime(case / name, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        run = case / ("new" if STATE == "shared" else "run")
        generated = generate(case / "run")
        resumed = train(run) if STATE == "shared" else resume(run)
        differ = [key for key in differences(expected, run) if decides(key)] if resumed[0] == 0 else []
        if path.name == "metrics.jsonl" and differ == ["metrics"]:
            differ = []    # Nothing guards the digits of a record that nothing is computed from.
        for use, (code, _, err), same in [("generate", generated, generated[1] == sound[1]),
                                          ("resume", resumed, not differ)]:
            # A folder is name enough.
            named = any(part in err for part in (path.name, path.parent.name)) or \
                code == 0 and "skipped a checkpoint" in err
            found = verdict(code, same, named, err)
            counts[use, found] += 1
            if found.startswith("BAD"):
                print(f"{found}: {use}: {name} byte {at}: exit {code}, differs in {differ}: {err}", flush=True)
    for (use, found), count in sorted(counts.items()):
        print(f"{count:5} {use}: {found}")
    end(f"flips ({STATE})", flips, sum(count for (_, found), count in counts.items() if found.startswith("BAD")))


main()
