//! Damaged files, made by chance from whole ones: every loader must end in what is true or in one line that names the
//! file, without a panic and in bounded memory.
//!
//! `SMOLTER_FUZZ_ITERATIONS` (per target) and `SMOLTER_FUZZ_SEED` make long runs; a failure says how to repeat it. A
//! process that dies leaves the last damaged folder, `smolter-fuzz-TARGET-*`, among the temporary files.

mod memory;
mod mutate;
mod targets;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smolter::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Bytes that loading a folder of some KiB may take.
const MEMORY: usize = 512 << 20;

/// A folder of small, whole files, and a loader of it.
struct Target {
    name: &'static str,
    files: Vec<(String, Vec<u8>)>,
    /// Loads the folder in which one file is damaged, the one of that name. Panics if what is loaded contradicts itself.
    load: fn(&Path, &str) -> smolter::Result<()>,
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

impl Target {
    /// Damages a file and loads the folder, so many times.
    #[track_caller]
    fn fuzz(&self, iterations: u64) {
        let iterations = setting("SMOLTER_FUZZ_ITERATIONS").unwrap_or(iterations);
        let (seed, start) =
            (setting("SMOLTER_FUZZ_SEED").unwrap_or(0), setting("SMOLTER_FUZZ_START").unwrap_or(0));
        match self.run(seed, start..start + iterations) {
            Ok(refused) => eprintln!("{}: {refused} of {iterations} damaged folders refused", self.name),
            Err((iteration, what)) => panic!(
                "{}, iteration {iteration}: {what}\nrepeat: SMOLTER_FUZZ_SEED={seed} SMOLTER_FUZZ_START={iteration} \
                 SMOLTER_FUZZ_ITERATIONS=1",
                self.name
            ),
        }
    }

    /// The number of folders that were refused, or the first iteration that went wrong, and how.
    fn run(&self, seed: u64, iterations: std::ops::Range<u64>) -> Result<u64, (u64, String)> {
        let prefix = format!("smolter-fuzz-{}-", self.name);
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary folder");
        for (name, bytes) in &self.files {
            write(&folder.path().join(name), bytes);
        }
        for (name, _) in &self.files {
            (self.load)(folder.path(), name).expect("what is whole can be loaded");
        }
        let mut refused = 0;
        for iteration in iterations {
            // Any iteration can be repeated without those before it.
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(iteration);
            let (name, whole) = &self.files[rng.random_range(0..self.files.len())];
            let mut damaged = whole.clone();
            mutate::mutate(name, &mut damaged, &mut rng);
            let path = folder.path().join(name);
            write(&path, &damaged);
            match self.judge(folder.path(), name) {
                Ok(outcome) => refused += u64::from(outcome.is_err()),
                Err(what) => return Err((iteration, format!("{name} of {} bytes: {what}", damaged.len()))),
            }
            write(&path, whole);
        }
        Ok(refused)
    }

    /// How loading ended, or what is wrong with that.
    fn judge(&self, folder: &Path, name: &str) -> Result<smolter::Result<()>, String> {
        let (outcome, memory) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| (self.load)(folder, name))));
        let outcome = outcome.map_err(|panic| format!("a panic: {}", text_of(&*panic)))?;
        if memory > MEMORY {
            return Err(format!("took {} MiB", memory >> 20));
        }
        if let Err(error) = &outcome {
            check(error, folder)?;
        }
        Ok(outcome)
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

/// A refusal is one readable line that names the file, or one per mistake, and a mistake in the input.
fn check(error: &Error, folder: &Path) -> Result<(), String> {
    if let Error::Mistakes(lines) = error {
        return lines.iter().try_for_each(|line| check(&Error::input(line), folder));
    }
    let line = error.to_string();
    let unreadable = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let wrong = if line.contains(unreadable) {
        "is not one line"
    } else if !line.contains(&*folder.to_string_lossy()) {
        "does not name the file"
    } else if line.chars().count() > 8000 {
        "is too long to read"
    } else if error.exit_code() != 2 {
        "is not counted as a mistake in the input"
    } else {
        return Ok(());
    };
    Err(format!("the message {wrong}: {line:?}"))
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, bytes).expect("a file");
}

/// Loaders with one fault each, in the way they read a count of eight bytes; the harness must find all.
#[test]
fn a_careless_loader_is_caught() {
    type Load = fn(&Path, &str) -> smolter::Result<()>;
    fn bytes(folder: &Path) -> Vec<u8> {
        std::fs::read(folder.join("a.bin")).expect("a file")
    }
    fn count(folder: &Path) -> u64 {
        u64::from_le_bytes(*bytes(folder).first_chunk().unwrap_or(&[9; 8]))
    }
    let loaders: [(&str, Load); 4] = [
        ("a panic", |folder, _| {
            let header = bytes(folder);
            assert_eq!(header[..8].len(), 8);
            Ok(())
        }),
        ("took ", |folder, _| {
            drop(std::hint::black_box(Vec::<u8>::with_capacity(count(folder).min(1 << 30) as usize)));
            Ok(())
        }),
        ("does not name", |folder, _| match count(folder) {
            8 => Ok(()),
            n => Err(Error::input(format!("{n} is not 8"))),
        }),
        ("not counted as a mistake", |folder, _| match count(folder) {
            8 => Ok(()),
            n => Err(Error::failure(format!("{}: {n} is not 8", folder.display()))),
        }),
    ];
    for (word, load) in loaders {
        let files = vec![("a.bin".to_string(), [8u64.to_le_bytes(); 2].concat())];
        let target = Target { name: "careless", files, load };
        let (iteration, what) = target.run(0, 0..500).expect_err(word);
        assert!(what.contains(word), "{word}: {what}");
        let (again, _) = target.run(0, iteration..iteration + 1).expect_err("it repeats");
        assert_eq!(again, iteration);
    }
}
