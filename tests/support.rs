//! Shared by the tests.

use smolter::gpu::Device;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;

/// The best adapter, opened once. `None` where there is none, which is a failure if `SMOLTER_REQUIRE_GPU=1`.
pub fn device() -> Option<Arc<Device>> {
    static DEVICE: OnceLock<Option<Arc<Device>>> = OnceLock::new();
    let device =
        DEVICE.get_or_init(|| Device::open("auto").expect("an adapter that exists opens").map(Arc::new));
    if device.is_none() {
        let required = std::env::var("SMOLTER_REQUIRE_GPU").is_ok_and(|v| v == "1");
        assert!(
            !required,
            "SMOLTER_REQUIRE_GPU=1, but there is no adapter (apt-get install mesa-vulkan-drivers)"
        );
        eprintln!("skipped: no adapter (apt-get install mesa-vulkan-drivers)");
    }
    device.clone()
}

/// What to give to `--device`: the reference executor, and the adapter where there is one.
pub fn devices() -> Vec<&'static str> {
    if device().is_some() { vec!["reference", "auto"] } else { vec!["reference"] }
}

/// The folders `llama_*` of models and what torch makes of them.
pub fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let all = std::fs::read_dir(folder).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = all.filter(|path| path.join("golden.safetensors").exists()).collect();
    found.sort();
    assert!(found.len() >= 4, "{found:?}");
    found
}

/// A recipe of 12 steps that takes a fraction of a second: two datasets, two stages of different lengths.
pub const RECIPE: &str = r#"name = "tiny"

[model]
vocab_size = 320
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
max_position_embeddings = 32
rope_theta = 10_000
rms_norm_eps = 1e-5
tie_word_embeddings = true
initializer_std = 0.1
eos_token_id = 0

[tokenizer]
train = { vocab_size = 320, sample_documents = 20 }

[schedule]
kind = "constant"
peak_lr = 1e-3
warmup_steps = 2

[batch]
sequences = 4

[[datasets]]
name = "facts"
microcosm = "lessons"
documents = 40

[[datasets]]
name = "sums"
microcosm = "drills"
documents = 40

[[stages]]
name = "short"
kind = "pretrain"
tokens = 384
sequence_length = 16
mixture = { facts = 0.7, sums = 0.3 }

[[stages]]
name = "long"
kind = "pretrain"
tokens = 1152
sequence_length = 32
rope_theta = 20_000
mixture = { facts = 0.5, sums = 0.5 }

[held_out]
fraction = 0.1
sequences = 4
every = 6

[checkpoint]
every = 4
"#;

/// How a run of the program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Requires the exit code, and that each of `words` stands on stderr.
    #[track_caller]
    pub fn expect(self, code: i32, words: &[&str]) -> Outcome {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "stderr lacks '{word}': {self:#?}");
        }
        if code != 0 {
            let errors = self.stderr.lines().filter(|line| line.starts_with("error: ")).count();
            assert_eq!(errors, 1, "one line should say what is wrong: {self:#?}");
        }
        self
    }

    /// Requires that nothing of a loss spike stands on stderr.
    #[track_caller]
    pub fn is_calm(&self) {
        assert!(!self.stderr.contains("spike"), "{self:#?}");
    }

    /// Requires that stderr is one line.
    #[track_caller]
    pub fn is_one_line(&self) {
        assert_eq!(self.stderr.lines().count(), 1, "{self:#?}");
    }
}

/// Runs the program to its end. A panic fails the test whatever the exit code.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program prints UTF-8");
    let outcome =
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!outcome.stderr.contains("panicked"), "{command:?} {outcome:#?}");
    outcome
}

/// The program, without the settings of whoever runs the tests.
pub fn smolter(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smolter"));
    for name in ["SMOLTER_DEVICE", "SMOLTER_DISABLE", "SMOLTER_SHADERS", "SMOLTER_DEBUG", "SMOLTER_CHECKED"] {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// A temporary folder with [`RECIPE`] in it, and runs of that recipe.
pub struct Place {
    folder: TempDir,
}

impl Place {
    /// A fresh folder.
    pub fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().expect("a temporary folder") };
        std::fs::write(place.path("tiny.toml"), RECIPE).expect("the recipe is written");
        place
    }

    /// Another recipe in place of [`RECIPE`].
    pub fn recipe(&self, text: &str) {
        std::fs::write(self.path("tiny.toml"), text).expect("the recipe is written");
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `smolter train` of the recipe into the run folder `run`.
    pub fn train(&self, run: &str, device: &str, overrides: &[&str]) -> Command {
        let mut command = smolter(&["train", "--device", device]);
        command.arg("--recipe").arg(self.path("tiny.toml")).arg("--out").arg(self.path(run));
        overrides.iter().for_each(|set| {
            command.args(["--set", set]);
        });
        command
    }

    /// `smolter train --resume` of the run folder `run`.
    pub fn resume(&self, run: &str, device: &str) -> Command {
        let mut command = smolter(&["train", "--device", device, "--resume"]);
        command.arg(self.path(run));
        command
    }

    /// Weights and moments of a run after `step`, as bytes.
    pub fn state(&self, run: &str, step: u64) -> Vec<Vec<u8>> {
        let checkpoint = self.path(run).join(format!("checkpoints/step-{step:06}"));
        ["model.safetensors", "trainer/exp_avg.safetensors", "trainer/exp_avg_sq.safetensors"]
            .map(|name| std::fs::read(checkpoint.join(name)).expect("the checkpoint is complete"))
            .into()
    }
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Starts a command and waits until the run folder `run` has metrics of `steps` steps.
pub fn spawn_until(command: &mut Command, run: &Path, steps: usize) -> Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let metrics = run.join("metrics.jsonl");
    while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < steps {
        assert!(child.try_wait().expect("its state").is_none(), "it ended before step {steps}");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Sends a signal, such as `-INT`, to a process that was started.
pub fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs").success()
    );
}

/// Changes a bit in the middle of a file.
pub fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(path, bytes).expect("a file");
}

/// Leaves two thirds of a file.
pub fn cut_short(path: &Path) {
    let bytes = std::fs::read(path).expect("a file");
    std::fs::write(path, &bytes[..bytes.len() * 2 / 3]).expect("a file");
}
