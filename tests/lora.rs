//! T2: adapters: against what PEFT makes of those in `fixtures/lora/` in f64; stages that train them, what they leave in
//! checkpoints and what goes on from there; the memory that they are planned to take.

use crate::hf_parity::{Tensors, only, read, worst};
use crate::support::{Place, RECIPE, device, devices, flip_a_bit, run, smolter};
use smolter::checkpoint::TensorFile;
use smolter::graph::recompute::Policy;
use smolter::graph::{Backend, null};
use smolter::nn::{Architecture, LlamaConfig, Lora};
use smolter::recipes::Recipe;
use smolter::train::fit::Work;
use smolter::train::kinds::Objective;
use smolter::train::metrics::Metrics;
use std::path::{Path, PathBuf};

/// Limit of the worst tensor's error, and of the largest difference of logits; those of `lora_parity.py`.
const VALUES: f64 = 1e-9;
const LARGEST: f32 = 1e-5;

/// Models, and the adapters for them.
fn fixtures() -> [(PathBuf, PathBuf); 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    ["llama_grouped", "llama_empty_row"].map(|name| (folder.join(name), folder.join("lora").join(name)))
}

fn debug(job: &str, model: &Path, adapter: &Path, device: &str) -> Tensors {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out.safetensors");
    let mut command = smolter(&["debug", job, "--device", device, "--model"]);
    command.arg(model).arg("--adapter").arg(adapter).arg("--out").arg(&out);
    run(command.arg("--input").arg(model.join("input.safetensors"))).expect(0, &[]);
    read(&out, "")
}

fn differ(got: &Tensors, want: &Tensors) -> f32 {
    got.keys()
        .flat_map(|name| got[name].iter().zip(&want[name]))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn logits_and_gradients_agree_with_peft() {
    for (model, adapter) in fixtures() {
        let golden = adapter.join("golden.safetensors");
        let logits = only(&golden, "logits");
        let mut gradients = read(&golden, "grad.");
        gradients.extend(only(&golden, "loss"));
        for device in devices() {
            let what = |job: &str| format!("{} {job} on {device}", adapter.display());
            let got = debug("forward", &model, &adapter, device);
            assert!(worst(&got, &logits).0 <= VALUES, "{}: {:?}", what("forward"), worst(&got, &logits));
            assert!(differ(&got, &logits) <= LARGEST, "{}", what("forward"));
            // The adapter matters: without it the logits are far from these.
            assert!(worst(&only(&model.join("golden.safetensors"), "logits"), &logits).0 > 1e-3);
            let got = debug("backward", &model, &adapter, device);
            assert!(
                worst(&got, &gradients).0 <= VALUES,
                "{}: {:?}",
                what("backward"),
                worst(&got, &gradients)
            );
        }
    }
}

#[test]
fn an_adapter_is_exported_as_it_is_and_merged() {
    for (model, adapter) in fixtures() {
        let place = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| place.path().join(name);
        let export = |flags: &[&str], out: &str| {
            run(smolter(&["export"]).arg(&model).arg("--out").arg(path(out)).args(flags))
        };
        let given = ["--adapter", adapter.to_str().expect("its name is Unicode")];
        export(&given, "alone").expect(0, &[]);
        // Its bytes are those of PEFT's file but for the order of its keys.
        let (alone, theirs) =
            (path("alone/adapter_model.safetensors"), adapter.join("adapter_model.safetensors"));
        assert!(read(&alone, "") == read(&theirs, ""), "{} differs", alone.display());
        let logits = debug("forward", &model, &adapter, "reference");
        // Its alpha as well, which may stand for that of rank-stabilised LoRA.
        let again = debug("forward", &model, &path("alone"), "reference");
        assert!(worst(&again, &logits).0 < 1e-13, "{:?}", worst(&again, &logits));

        export(&[given[0], given[1], "--merge"], "merged").expect(0, &[]);
        let file = TensorFile::open(&path("merged")).expect("a model");
        let plain = TensorFile::open(&model).expect("a model");
        assert!(file.names().eq(plain.names()));
        let input = model.join("input.safetensors");
        let mut command = smolter(&["debug", "forward", "--device", "reference", "--model"]);
        command.arg(path("merged")).arg("--input").arg(input).arg("--out").arg(path("out.safetensors"));
        run(&mut command).expect(0, &[]);
        let merged = read(&path("out.safetensors"), "");
        assert!(differ(&merged, &logits) <= LARGEST && worst(&merged, &logits).0 <= VALUES);

        export(&["--merge"], "other").expect(2, &["has no adapter", "--adapter"]);
        export(&given, "other.gguf").expect(2, &["has an adapter", "--merge"]);
        export(&[given[0], given[1], "--dtype", "q8_0"], "other").expect(2, &["--merge"]);
        run(smolter(&["export"]).arg(&adapter).arg("--out").arg(path("other")))
            .expect(2, &["is an adapter", "--adapter"]);
    }
}

/// Three steps of all weights, three of adapters, and two of all weights again.
fn recipe(place: &Place) -> Recipe {
    let (head, tail) = RECIPE.split_once("[[stages]]\nname = \"short\"").expect("the first stage");
    let (_, tail) = tail.split_once("[held_out]").expect("what follows the stages");
    let stage = |name: &str, tokens: u32, more: &str| {
        format!(
            "[[stages]]\nname = \"{name}\"\ntokens = {tokens}\nsequence_length = 16\nmixture = {{ facts = 0.5, sums = \
             0.5 }}\n{more}\n"
        )
    };
    let stages = [
        stage("before", 192, ""),
        stage("adapters", 384, "schedule = \"adapters\"\n[stages.lora]\nrank = 3\nalpha = 9\n"),
        stage("after", 512, "schedule = \"after\""),
    ];
    let schedules = "[schedules.adapters]\nkind = \"constant\"\npeak_lr = 0.1\n\n\
                     [schedules.after]\nkind = \"constant\"\npeak_lr = 1e-3\n\n";
    place.recipe(&format!("{head}{}{schedules}[held_out]{tail}", stages.concat()));
    Recipe::load(&place.path("tiny.toml").to_string_lossy(), &[]).expect("the recipe is sound")
}

const ADAPTER: &str = "adapter/adapter_model.safetensors";

fn bytes(place: &Place, run: &str, step: u64, file: &str) -> Vec<u8> {
    let path = place.path(run).join(format!("checkpoints/step-{step:06}")).join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_stage_of_adapters_keeps_the_weights_and_the_next_one_has_them_merged() {
    for device in devices() {
        let place = Place::new();
        recipe(&place);
        // So small that the weights of the last stage stay what it began with.
        let still = ["schedules.after.peak_lr=1e-30", "checkpoint.every=1", "checkpoint.keep=20"];
        let outcome = run(&mut place.train("run", device, &still)).expect(0, &[]);
        for words in
            ["stage adapters: trains", "rank 3, alpha 9", "the adapters of stage adapters are merged"]
        {
            assert!(outcome.stdout.contains(words), "no '{words}' in {}", outcome.stdout);
        }
        let weights = |step| bytes(&place, "run", step, "model.safetensors");
        assert!([4, 5, 6].iter().all(|&step| weights(step) == weights(3)), "{device}: the base has changed");
        let adapters = [4, 5, 6].map(|step| bytes(&place, "run", step, ADAPTER));
        assert!(
            adapters[0] != adapters[1] && adapters[1] != adapters[2],
            "{device}: the adapters are not trained"
        );
        let names = |file: &str| {
            let path = place.path("run/checkpoints/step-000006").join(file);
            TensorFile::open(&path).expect("tensors").names().map(String::from).collect::<Vec<_>>()
        };
        // Moments are those of the adapters, and nothing is left of these in the stage after.
        assert_eq!(names(ADAPTER), names("trainer/exp_avg.safetensors"));
        assert_eq!(names(ADAPTER).len(), 2 * 7 * 2);
        assert!(!place.path("run/checkpoints/step-000007/adapter").exists());

        let checkpoint = place.path("run/checkpoints/step-000006");
        let merged = place.path("merged");
        run(smolter(&["export", "--merge"]).arg(&checkpoint).arg("--out").arg(&merged)).expect(0, &[]);
        let merged = std::fs::read(merged.join("model.safetensors")).expect("the merged weights");
        assert!(
            merged != weights(6) && merged == weights(7),
            "{device}: the stage after begins with other weights"
        );

        // Both are used where the model is: text, and what it is worth.
        let text = |model: &Path, adapter: &[&Path]| {
            let mut command = smolter(&["generate", "-p", "The", "-n", "24", "--device", device]);
            command.arg(model);
            for adapter in adapter {
                command.arg("--adapter").arg(adapter);
            }
            run(&mut command).expect(0, &[]).stdout
        };
        let alone = place.path("alone");
        run(smolter(&["export"]).arg(&checkpoint).arg("--out").arg(&alone)).expect(0, &[]);
        assert!(alone.join("tokenizer.json").exists() && !alone.join("model.safetensors").exists());
        let before = place.path("run/checkpoints/step-000003");
        let adapted = text(&checkpoint, &[]);
        assert_eq!(adapted, text(&place.path("merged"), &[]), "{device}");
        assert_eq!(adapted, text(&before, &[&alone]), "{device}");
        assert_eq!(adapted, text(&before, &[&checkpoint]), "{device}");
        assert!(adapted != text(&before, &[]), "{device}: the adapters change no text");
    }
}

#[test]
fn resuming_around_a_stage_of_adapters_is_exact() {
    for device in devices() {
        let place = Place::new();
        recipe(&place);
        run(&mut place.train("whole", device, &[])).expect(0, &[]);
        // Around both borders of the stage; on the device only at them and within.
        let all = [3, 4, 6, 2, 7];
        for until in all.into_iter().take(if device == "reference" { 5 } else { 3 }) {
            let name = format!("stopped-{until}");
            run(place.train(&name, device, &[]).args(["--until", &until.to_string()])).expect(0, &[]);
            run(&mut place.resume(&name, device)).expect(0, &[]);
            let same = place.state("whole", 8) == place.state(&name, 8)
                && place.state("whole", 6) == place.state(&name, 6)
                && bytes(&place, "whole", 6, ADAPTER) == bytes(&place, &name, 6, ADAPTER);
            assert!(same, "{device}: a run resumed after step {until} differs");
        }
        // A damaged adapter is as bad as damaged weights: the checkpoint before is taken.
        run(place.train("hurt", device, &["checkpoint.every=1"]).args(["--until", "5"])).expect(0, &[]);
        flip_a_bit(&place.path("hurt/checkpoints/step-000005").join(ADAPTER));
        run(&mut place.resume("hurt", device))
            .expect(0, &["skipped a checkpoint", "adapter_model.safetensors"]);
        assert!(place.state("whole", 8) == place.state("hurt", 8), "{device}");
    }
}

#[test]
fn a_branch_beside_adapters_goes_on_with_the_weights_and_their_moments() {
    let place = Place::new();
    recipe(&place);
    let branch = ["stages.after.from=before", "stages.after.tokens=320"];
    run(&mut place.train("run", "reference", &branch)).expect(0, &[]);
    // The same without the stage of adapters, and stopped in front of the branch.
    run(place.train("stopped", "reference", &branch).args(["--until", "6"])).expect(0, &[]);
    run(&mut place.resume("stopped", "reference")).expect(0, &[]);
    assert!(place.state("run", 8) == place.state("stopped", 8), "a resumed branch differs");
    let text = std::fs::read_to_string(place.path("tiny.toml")).expect("the recipe");
    let (head, tail) = text.split_once("[[stages]]\nname = \"adapters\"").expect("the stage of adapters");
    let (_, tail) = tail.split_once("[[stages]]").expect("the stage after");
    let (stage, tail) = tail.split_once("[schedules.adapters]").expect("its schedule");
    let (_, tail) = tail.split_once("[schedules.after]").expect("the other schedule");
    place.recipe(&format!("{head}[[stages]]{stage}[schedules.after]{tail}"));
    run(&mut place.train("straight", "reference", &branch[1..])).expect(0, &[]);
    assert!(place.state("run", 8) == place.state("straight", 5), "the branch differs");
}

#[test]
fn a_model_from_elsewhere_gets_adapters_that_know_it() {
    let place = Place::new();
    recipe(&place);
    run(place.train("base", "reference", &[]).args(["--until", "3"])).expect(0, &[]);
    let from = place.path("base/checkpoints/step-000003");
    let text = std::fs::read_to_string(place.path("tiny.toml")).expect("the recipe");
    let datasets =
        &text[text.find("[[datasets]]").expect("datasets")..text.find("[[stages]]").expect("stages")];
    let text = format!(
        "name = \"tuned\"\n[model]\nfrom = \"{}\"\n[schedule]\nkind = \"constant\"\npeak_lr = 0.1\n[batch]\n\
         sequences = 4\n{datasets}[[stages]]\nname = \"adapters\"\nsteps = 3\nsequence_length = 16\nmixture = {{ facts = \
         0.5, sums = 0.5 }}\nlora = {{ targets = [\"v_proj\", \"q_proj\"] }}\n",
        from.display()
    );
    place.recipe(&text);
    run(&mut place.train("tuned", "reference", &[])).expect(0, &[]);
    let last = place.path("tuned/checkpoints/step-000003");
    let same =
        |file: &str| std::fs::read(from.join(file)).unwrap() == std::fs::read(last.join(file)).unwrap();
    assert!(same("model.safetensors") && same("tokenizer.json"));
    // The exported adapter names the model that it is for: the weights beside it.
    run(smolter(&["export"]).arg(place.path("tuned")).arg("--out").arg(place.path("alone"))).expect(0, &[]);
    let config = std::fs::read_to_string(place.path("alone/adapter_config.json")).expect("a configuration");
    assert!(config.contains(last.to_str().expect("Unicode")), "{config}");
    // What is trained from a run with adapters begins with them merged.
    place.recipe(&text.replace(from.to_str().unwrap(), place.path("tuned").to_str().unwrap()));
    run(place.train("again", "reference", &[]).args(["--until", "1"])).expect(0, &[]);
    run(smolter(&["export", "--merge"]).arg(place.path("tuned")).arg("--out").arg(place.path("merged")))
        .expect(0, &[]);
    let merged = std::fs::read(place.path("merged/model.safetensors")).expect("the merged weights");
    assert!(merged == bytes(&place, "again", 1, "model.safetensors"));
}

#[test]
fn what_a_stage_of_adapters_allocates_is_what_was_planned() {
    let Some(_) = device() else { return };
    let place = Place::new();
    recipe(&place);
    run(&mut place.train("run", "auto", &["held_out.every=1"])).expect(0, &[]);
    let resolved = Recipe::load(&place.path("run/recipe.toml").to_string_lossy(), &[]).expect("the recipe");
    let caps = Backend::open("auto").expect("it opens").caps();
    let text = std::fs::read_to_string(place.path("run/metrics.jsonl")).expect("the metrics");
    let mut totals = Vec::new();
    for (stage, step) in [(0, 3), (1, 6), (2, 8)] {
        let line = text.lines().nth(step - 1).expect("the step's line");
        let allocated = serde_json::from_str::<Metrics>(line).expect("a line").timing.memory;
        let micro_batch = resolved.batch_of(stage).micro_batch;
        let planned = Work::of(&resolved, stage).choose(&caps, micro_batch, u64::MAX).expect("a plan");
        assert_eq!(allocated, planned.total(), "stage {stage}");
        totals.push(allocated);
    }
    assert_eq!(totals[0], totals[2]);
}

/// SmolLM2-1.7B with adapters of rank 16 on sequences of 2,048 tokens.
#[test]
fn adapters_on_the_largest_model_are_planned_and_the_null_executor_confirms_it() {
    let architecture = Architecture::from(LlamaConfig::smollm2_1_7b());
    let lora = Lora { rank: 16, ..Lora::default() };
    let objective = Objective::NextToken { document_mask: false };
    let work = |architecture| Work { architecture, objective: objective.clone(), sequences: 1, length: 2048 };
    let (adapted, whole) = (work(architecture.clone().with_lora(Some(lora))), work(architecture));
    // rank x (in + out) of each of the seven layers of 24 blocks.
    assert_eq!(adapted.architecture.num_trained(), 24 * 16 * (4 * (2048 + 2048) + 3 * (2048 + 8192)));
    for policy in Policy::ALL {
        let [adapted, whole] = [&adapted, &whole].map(|work| {
            let found = work.candidate(&Backend::Reference.caps(), 1, policy).expect("a plan");
            null::check(&found.training.graph, &found.plan)
                .unwrap_or_else(|why| panic!("{}: {why}", policy.name()));
            found
        });
        let slab = |slabs: Vec<(String, u64)>, name: &str| {
            slabs.into_iter().find(|it| it.0 == name).expect("a slab").1
        };
        let trained = 4 * 18_087_936;
        assert_eq!(slab(adapted.slabs(), "weights"), 4 * 1_711_376_384 + trained);
        assert_eq!(slab(adapted.slabs(), "moments"), 2 * trained);
        assert_eq!(slab(adapted.slabs(), "gradients"), trained);
        assert_eq!(slab(whole.slabs(), "moments"), 8 * 1_711_376_384);
        // Moments and gradients of the base are what is saved.
        let saved = whole.total() - adapted.total();
        assert!(saved > 12 * 1_600_000_000, "{}: only {saved} bytes are saved", policy.name());
    }
    let flags = ["plan", "--recipe", "smollm2-1.7b", "--memory", "80GiB", "--set", "stages.0.lora.rank=16"];
    let outcome = run(&mut smolter(&flags)).expect(0, &[]);
    for words in ["adapters of rank 16, alpha 32", "18087936 parameters", "are saved"] {
        assert!(outcome.stdout.contains(words), "no '{words}' in {}", outcome.stdout);
    }
}

#[test]
fn adapters_that_cannot_be_are_refused_by_place() {
    let place = Place::new();
    recipe(&place);
    let refused = |set: &str, words: &[&str]| {
        run(&mut place.train("run", "reference", &[set])).expect(2, words);
    };
    refused("stages.adapters.lora.rank=0", &["lora.rank is 0"]);
    refused("stages.adapters.lora.rank=99999999", &["lora.rank is 99999999", "from 1 to"]);
    refused("stages.adapters.lora.dropout=0.1", &["dropout is 0.1", "must be 0"]);
    refused("stages.adapters.lora.alpha=-1", &["alpha is -1"]);
    refused("stages.adapters.lora.targets=[\"lm_head\"]", &["'lm_head'", "q_proj"]);
    refused("stages.adapters.lora.ranks=8", &["ranks", "rank"]);

    let (model, adapter) = &fixtures()[0];
    let broken = |change: &dyn Fn(&Path), words: &[&str]| {
        let folder = place.path("broken");
        let _ = std::fs::remove_dir_all(&folder);
        crate::support::copy(adapter, &folder);
        change(&folder);
        let mut command = smolter(&["debug", "forward", "--device", "reference", "--model"]);
        command.arg(model).arg("--adapter").arg(&folder).arg("--input").arg(model.join("input.safetensors"));
        run(command.arg("--out").arg(place.path("out"))).expect(2, words).is_one_line();
    };
    let config = |from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join("adapter_config.json");
            let text = std::fs::read_to_string(&path).expect("a configuration");
            assert!(text.contains(from), "{text}");
            std::fs::write(path, text.replace(from, to)).expect("a file");
        }
    };
    let name = "adapter_config.json: ";
    broken(&config("\"LORA\"", "\"IA3\""), &[name, "peft_type"]);
    broken(&config("\"use_dora\": false", "\"use_dora\": true"), &[name, "use_dora is true", "PEFT"]);
    broken(&config("\"bias\": \"none\"", "\"bias\": \"all\""), &[name, "bias is"]);
    broken(&config("\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 2}"), &[name, "rank_pattern"]);
    broken(
        &config("\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa\""),
        &[name, "init_lora_weights"],
    );
    broken(&config("\"r\": 4", "\"r\": 1e9"), &[name, "r is"]);
    broken(&config("\"r\": 4", "\"r\": 5"), &["adapter_model.safetensors", "shape"]);
    broken(&config("\"lora_alpha\": 8", "\"lora_alpha\": \"8\""), &[name, "lora_alpha"]);
    broken(&config("{", "["), &[name, "not a JSON object"]);
    broken(
        &|folder| std::fs::remove_file(folder.join("adapter_config.json")).unwrap(),
        &["no adapter_config.json"],
    );
    broken(
        &|folder| std::fs::remove_file(folder.join("adapter_model.safetensors")).unwrap(),
        &["adapter_model.safetensors"],
    );
    broken(
        &|folder| crate::support::cut_short(&folder.join("adapter_model.safetensors")),
        &["adapter_model.safetensors"],
    );
    // Another model's.
    let mut command = smolter(&["generate", "-p", "x", "--device", "reference"]);
    run(command.arg(&fixtures()[1].0).arg("--adapter").arg(adapter))
        .expect(2, &["adapter_model.safetensors"]);
    run(smolter(&["export"])
        .arg(model)
        .arg("--adapter")
        .arg(place.path("none"))
        .arg("--out")
        .arg(place.path("x")))
    .expect(2, &["none: no such folder"]);
}
