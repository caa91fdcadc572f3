use super::super::disk::testing::FailingDisk;
use super::*;

fn parameters() -> Vec<(String, Vec<usize>)> {
    vec![("a".into(), vec![2, 3]), ("b".into(), vec![4])]
}

const STATES: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const PARTS: [Part; 3] = [Part::Weights, Part::State("exp_avg"), Part::State("exp_avg_sq")];

/// Values that differ between steps, parts and elements.
fn value(step: u64, part: Part, index: usize) -> f32 {
    let which = PARTS.iter().position(|&it| it == part).expect("a part of these checkpoints");
    step as f32 + 0.25 * which as f32 + index as f32 / 64.0
}

fn save_step<D: Disk>(disk: &D, run: &Path, step: u64, keep: usize) -> Result<(PathBuf, Vec<String>)> {
    save_keeping(disk, run, step, keep, &[])
}

/// Only parameter "b" is trained.
fn save_keeping<D: Disk>(
    disk: &D,
    run: &Path,
    step: u64,
    keep: usize,
    kept: &[u64],
) -> Result<(PathBuf, Vec<String>)> {
    let mut state = TrainerState::new("00ff", "stable");
    (state.step, state.tokens, state.sequences) = (step, step * 8, step * 2);
    state.extra = serde_json::json!({"loss_scale": 65536.0});
    let mut read = |part: Part, name: &str| {
        let count = if name == "a" { 6 } else { 4 };
        Ok((0..count).map(|i| value(step, part, i)).collect())
    };
    let files =
        [("config.json".to_string(), b"{}".to_vec()), ("tokenizer.json".to_string(), b"[1]".to_vec())];
    let contents = Contents {
        files: &files,
        parameters: &parameters(),
        trained: &parameters()[1..],
        states: &STATES,
        read: &mut read,
        state: &state,
    };
    save_on(disk, run, contents, keep, kept)
}

fn never_fails() -> FailingDisk {
    FailingDisk::default()
}

/// Asserts that everything in the newest whole checkpoint belongs to one step, and returns that step.
fn newest_step(run: &Path) -> u64 {
    let (checkpoint, _) = newest_whole(run).unwrap().expect("no checkpoint");
    let step = checkpoint.state.step;
    assert_eq!(checkpoint.state.sequences, step * 2);
    for part in PARTS {
        let tensors = checkpoint.tensors(part).unwrap();
        let first = usize::from(part != Part::Weights);
        tensors.expect(&parameters()[first..]).unwrap();
        assert_eq!(tensors.names().count(), 2 - first);
        assert_eq!(tensors.read_f32("b", &[4]).unwrap()[3], value(step, part, 3));
    }
    step
}

fn names_in(run: &Path) -> Vec<String> {
    entries(run).unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_checkpoint_comes_back_whole_from_the_real_disk() {
    let run = tempfile::tempdir().unwrap();
    let (path, warnings) = save_step(&RealDisk, run.path(), 120, 2).unwrap();
    assert!(path.ends_with("checkpoints/step-000120") && warnings.is_empty());
    assert_eq!(newest_step(run.path()), 120);
    let state = Checkpoint::open(&path).unwrap().state;
    assert_eq!((state.tokens, state.extra["loss_scale"].as_f64()), (960, Some(65536.0)));
    assert_eq!(std::fs::read(path.join("tokenizer.json")).unwrap(), b"[1]");
}

#[test]
fn only_the_newest_are_kept_and_later_steps_are_left_alone() {
    let run = tempfile::tempdir().unwrap();
    for step in [10, 20, 999_999, 30, 1_000_000] {
        save_step(&never_fails(), run.path(), step, 2).unwrap();
    }
    assert_eq!(names_in(run.path()), ["step-999999", "step-1000000"]);
    save_step(&never_fails(), run.path(), 40, 1).unwrap();
    assert_eq!(names_in(run.path()), ["step-000040", "step-999999", "step-1000000"]);
    assert!(newest_whole(tempfile::tempdir().unwrap().path()).unwrap().is_none());
}

#[test]
fn named_steps_stay_and_do_not_count() {
    let run = tempfile::tempdir().unwrap();
    for step in [10, 20, 30, 40, 50] {
        save_keeping(&never_fails(), run.path(), step, 2, &[10, 30, 60]).unwrap();
    }
    assert_eq!(names_in(run.path()), ["step-000010", "step-000030", "step-000040", "step-000050"]);
    save_keeping(&never_fails(), run.path(), 60, 1, &[10, 30, 60]).unwrap();
    assert_eq!(names_in(run.path()), ["step-000010", "step-000030", "step-000050", "step-000060"]);
}

#[test]
fn only_what_a_save_left_is_tidied() {
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join("checkpoints");
    let mine = [".old-mine", ".old-step-7", ".tmp-mine", ".tmp-step-0000070", "notes"];
    for name in mine.iter().chain(&[".tmp-step-000007", ".old-step-000008"]) {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    clean(run.path()).unwrap();
    let mut names = names_in(run.path());
    names.sort();
    assert_eq!(names, [&mine[..], &["step-000008"]].concat());
}

/// Kills a save of `step` after every number of operations; step 60 was saved before.
fn kill_everywhere(step: u64) {
    for operations in 0.. {
        let run = tempfile::tempdir().unwrap();
        save_step(&never_fails(), run.path(), 60, 1).unwrap();
        let disk = FailingDisk::dying_after(operations);
        let saved = save_step(&disk, run.path(), step, 1);
        let found = newest_step(run.path());
        assert!(found == 60 || found == step, "after {operations} operations: step {found}");
        if saved.is_ok() {
            assert_eq!(found, step, "after {operations} operations");
        }

        clean(run.path()).unwrap();
        assert_eq!(newest_step(run.path()), found, "cleaned after {operations} operations");
        assert!(names_in(run.path()).iter().all(|name| name.starts_with("step-")));
        save_step(&never_fails(), run.path(), 180, 1).unwrap();
        assert_eq!(names_in(run.path()), ["step-000180"], "after {operations} operations");
        if !disk.is_dead() {
            assert!(operations > 30, "the save took only {operations} operations");
            return;
        }
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_checkpoint() {
    kill_everywhere(120);
}

#[test]
fn a_kill_while_the_same_step_is_replaced_leaves_a_whole_checkpoint() {
    kill_everywhere(60);
}

#[test]
fn a_full_disk_is_an_error_that_changes_nothing() {
    for step in [60, 120] {
        for room in (0..100_000).step_by(97) {
            let run = tempfile::tempdir().unwrap();
            save_step(&never_fails(), run.path(), 60, 1).unwrap();
            match save_step(&FailingDisk::with_room_for(room), run.path(), step, 1) {
                Ok(_) => {
                    assert!(room > 1000, "a save cannot fit in {room} bytes");
                    break;
                }
                Err(error) => {
                    assert!(matches!(error, Error::Io { .. }), "{error}");
                    assert!(error.to_string().contains(".tmp-step-"), "{error}");
                    assert_eq!(names_in(run.path()), ["step-000060"]);
                    assert_eq!(newest_step(run.path()), 60);
                }
            }
        }
    }
}

#[test]
fn a_passing_fault_never_costs_the_checkpoint_that_is_replaced() {
    for operations in 0.. {
        let run = tempfile::tempdir().unwrap();
        save_step(&never_fails(), run.path(), 60, 1).unwrap();
        let saved = save_step(&FailingDisk::failing_once_after(operations), run.path(), 60, 1);
        assert_eq!(newest_step(run.path()), 60, "operation {operations}");
        let names = names_in(run.path());
        assert!(names.contains(&"step-000060".into()), "operation {operations}: {names:?}");
        if saved.is_ok_and(|(_, warnings)| warnings.is_empty()) {
            assert!(operations > 30, "the save took only {operations} operations");
            return;
        }
    }
}

#[test]
fn a_failing_readback_removes_the_half_written_folder() {
    let run = tempfile::tempdir().unwrap();
    let mut read = |part: Part, _: &str| match part {
        Part::Weights => Ok(vec![0.0]),
        _ => Err(Error::Device("lost".into())),
    };
    let state = TrainerState::new("", "");
    let parameters = [("a".to_string(), vec![1])];
    let contents = Contents {
        files: &[],
        parameters: &parameters,
        trained: &parameters,
        states: &STATES,
        read: &mut read,
        state: &state,
    };
    assert!(matches!(save(run.path(), contents, 1, &[]), Err(Error::Device(_))));
    assert!(names_in(run.path()).is_empty());
}

/// Flips one bit of every file in turn, and shortens and removes each.
#[test]
fn damage_to_any_file_is_named_and_the_older_checkpoint_taken() {
    let run = tempfile::tempdir().unwrap();
    save_step(&never_fails(), run.path(), 60, 2).unwrap();
    let (newest, _) = save_step(&never_fails(), run.path(), 120, 2).unwrap();
    let files = [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "trainer/exp_avg.safetensors",
        "trainer/exp_avg_sq.safetensors",
        "trainer/state.json",
        "trainer/manifest.json",
    ];
    for name in files {
        let path = newest.join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        for damage in [Some(flipped.as_slice()), Some(&whole[..whole.len() - 1]), Some(&[]), None] {
            match damage {
                // Without its closing newline the manifest still says all it has to say.
                Some(bytes) if name.ends_with("manifest.json") && bytes.len() + 1 == whole.len() => continue,
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            assert!(Checkpoint::open(&newest).is_err(), "{name}");
            let (found, warnings) = newest_whole(run.path()).unwrap().unwrap();
            assert_eq!(found.state.step, 60, "{name}");
            assert!(warnings.len() == 1 && warnings[0].contains("step-000120"), "{warnings:?}");
            if !name.ends_with("manifest.json") {
                assert!(warnings[0].contains(&format!("{name}: damaged: ")), "{warnings:?}");
            }
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(newest_step(run.path()), 120);
}

#[test]
fn with_no_whole_checkpoint_left_the_run_is_damaged() {
    let run = tempfile::tempdir().unwrap();
    for step in [60, 120] {
        let (path, _) = save_step(&never_fails(), run.path(), step, 2).unwrap();
        std::fs::remove_file(path.join("model.safetensors")).unwrap();
    }
    let error = newest_whole(run.path()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }));
    let text = error.to_string();
    assert!(text.contains("none of its 2") && text.contains("step-000060") && !text.contains('\n'), "{text}");
}

#[test]
fn what_is_no_checkpoint_or_newer_is_refused() {
    let run = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(run.path()), Err(Error::Input(_))));
    let mut state = TrainerState::new("", "");
    state.version = 2;
    let mut read = |_: Part, _: &str| Ok(vec![]);
    let contents =
        Contents { files: &[], parameters: &[], trained: &[], states: &[], read: &mut read, state: &state };
    let (path, _) = save(run.path(), contents, 1, &[]).unwrap();
    let text = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(text.contains("state.json: has version 2"), "{text}");
}
