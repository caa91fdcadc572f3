"""Shared by the checks: the binary, runs of a tiny recipe, and what of a run must be equal to an undisturbed one."""
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SMOLTER = os.environ.get("SMOLTER", str(HERE.parents[1] / "target/release/smolter"))
DEVICE = os.environ.get("DEVICE", "reference")
RECIPE = pathlib.Path(os.environ.get("RECIPE", HERE / "tiny.toml"))


def begin(tries):
    """How often to try, a random generator, and a folder for it: from the arguments [TRIES] [SEED]."""
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    tries, seed = (numbers + [tries, 1][len(numbers):])[:2]
    return tries, random.Random(seed), pathlib.Path(tempfile.mkdtemp(prefix="smolter-check-")).resolve()


def smolter(*args, env=(), timeout=60):
    """Exit code ('hang' if it has to be ended), stdout and stderr."""
    try:
        done = subprocess.run([SMOLTER, *map(str, args)], env={**os.environ, **dict(env)}, timeout=timeout,
                              capture_output=True, stdin=subprocess.DEVNULL)
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, out, err = "hang", late.stdout or b"", late.stderr or b""
    return code, out.decode(errors="replace"), err.decode(errors="replace")


def train(run, *more, **how):
    return smolter("train", RECIPE, "--device", DEVICE, "--out", run, "--memory", "64MiB", *more, **how)


def resume(run, **how):
    return smolter("train", "--device", DEVICE, "--resume", run, "--memory", "64MiB", **how)


def has_begun(run):
    return (run / "recipe.toml").exists() or (run / "checkpoints").is_dir()


def go_on(run, **how):
    """Resumes what has begun, and starts what has not."""
    return resume(run, **how) if has_begun(run) else train(run, **how)


def results(run):
    """Last checkpoint, tokens and tokenizer, names of the checkpoints, recipe, and metrics without times."""
    checkpoints = sorted(path for path in (run / "checkpoints").iterdir() if path.name.startswith("step-"))
    files = [path for base in [checkpoints[-1], run / "data"] for path in base.rglob("*") if path.is_file()]
    found = {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    found["metrics"] = [{key: value for key, value in line.items() if key != "timing"} for line in lines]
    found["checkpoints"] = [path.name for path in checkpoints]
    found["recipe.toml"] = (run / "recipe.toml").read_text()
    return found


def differences(expected, run):
    try:
        found = results(run)
    except (OSError, ValueError, IndexError) as error:
        return [f"unreadable: {error!r}"]
    return sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))


def undisturbed(place):
    """The results of a run in `place` that nothing befalls."""
    code, _, err = train(place / "run")
    assert code == 0, err
    return results(place / "run")


def leftovers(place):
    names = (".tmp", ".old")
    return sorted(str(path.relative_to(place)) for path in place.rglob("*")
                  if path.name.startswith(names) or path.name.endswith((".tmp", ".damaged")))


def panicked(text):
    return "panicked at" in text or "stack backtrace" in text


def end(what, tries, bad):
    print(f"{what}: {tries} tried, {bad} bad")
    sys.exit(1 if bad else 0)
