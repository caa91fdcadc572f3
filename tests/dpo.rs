//! T2: a stage on preference pairs: what it computes, that it learns, and that it goes on where it was.

use crate::support::{Place, devices, run};
use smolter::data::pairs::{pair, pair_count};
use smolter::data::shard::{TokenSet, Verify};
use smolter::data::tokenize::held_out_name;
use smolter::graph::Backend;
use smolter::infer;
use smolter::infer::scorer::{Bucket, Output, Row, Scorer, ScorerGraph};
use smolter::model::ModelFolder;
use smolter::tokenizer::Tokenizer;
use smolter::train::metrics::{self, Metrics};
use std::path::Path;

/// Three steps of text, then four of all the pairs.
const RECIPE: &str = r#"name = "tiny"

[model]
vocab_size = 320
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 96
initializer_std = 0.2

[tokenizer]
train = { vocab_size = 320, sample_documents = 40 }

[schedule]
kind = "constant"
peak_lr = 2e-3

[batch]
sequences = 4

[[datasets]]
name = "facts"
microcosm = "lessons"
documents = 60

[[datasets]]
name = "pairs"
paths = ["pairs.jsonl"]
on_broken = "skip"

[[stages]]
name = "text"
steps = 3
sequence_length = 32
mixture = { facts = 1.0 }

[[stages]]
name = "preferences"
kind = "dpo"
reset_optimizer = true
epochs = 4
sequence_length = 96
dpo = { beta = 0.3, label_smoothing = 0.1, max_prompt_length = 60 }
batch = { sequences = 8, micro_batch = 4 }
mixture = { pairs = 1.0 }

[held_out]
fraction = 0
every = 100

[checkpoint]
every = 1
keep = 9
"#;

const TEXT: u64 = 3;
const STEPS: u64 = 7;

/// Prompt, chosen and rejected: short ones, a prompt and an answer that are cut, one answer of a single letter.
fn pairs() -> Vec<[String; 3]> {
    let pair = |i: usize| {
        let times = |word: &str, n: usize| word.repeat(n);
        let prompt = if i == 2 { times("is it so, or not? ", 20) } else { format!("what is {i}?") };
        let chosen =
            if i == 4 { times("it is good. ", 12) } else { format!("it is {}.", times("good ", i % 4)) };
        [prompt, chosen, if i == 5 { "n".into() } else { format!("nothing{}", times(" at all", i % 3)) }]
    };
    (0..8).map(pair).collect()
}

fn place() -> Place {
    let place = Place::new();
    place.recipe(RECIPE);
    let line = |[prompt, chosen, rejected]: [String; 3]| {
        serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string() + "\n"
    };
    let mut text: String = pairs().into_iter().map(line).collect();
    text += &line(["equal?".into(), "yes".into(), "yes".into()]);
    text += "{\"prompt\": \"and?\", \"chosen\": \"yes\"}\n";
    std::fs::write(place.path("pairs.jsonl"), text).expect("the pairs are written");
    place
}

fn lines(run: &Path) -> Vec<Metrics> {
    metrics::read(&run.join("metrics.jsonl")).expect("the metrics").collect()
}

/// Log-probability of both answers of each pair under a checkpoint, and judged tokens, from the text alone.
fn log_probs(checkpoint: &Path, device: &str) -> Vec<[(f64, usize); 2]> {
    let tokenizer = Tokenizer::load(checkpoint).expect("its tokenizer");
    let encode = |text: &str| tokenizer.encode(text).expect("text");
    let row = |prompt: &str, answer: &str| {
        let prompt = encode(&format!(
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
             <|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        ));
        let prompt = &prompt[prompt.len().saturating_sub(60)..];
        let mut answer = encode(&format!("{answer}<|im_end|>"));
        answer.truncate(96 - prompt.len());
        Row::ending(prompt, &answer)
    };
    let rows: Vec<Row> = pairs()
        .iter()
        .flat_map(|[prompt, chosen, rejected]| [row(prompt, chosen), row(prompt, rejected)])
        .collect();
    assert!(rows.iter().any(|row| row.tokens.len() == 96), "no answer is cut");
    let model = ModelFolder::open(checkpoint).expect("a model");
    let backend = Backend::open(device).expect("it opens");
    let graph = ScorerGraph::new(&model.architecture, &[Bucket { length: 95, rows: 3 }], Output::Nll);
    let store = infer::load(&backend, &model, &[&graph.graph]).expect("the weights");
    let scores = Scorer::new(&backend, graph, &store).expect("a scorer").score(&rows).expect("scores");
    let sum = |nll: &Vec<f32>| (-nll.iter().map(|&x| f64::from(x)).sum::<f64>(), nll.len());
    scores.chunks(2).map(|pair| [sum(&pair[0]), sum(&pair[1])]).collect()
}

#[test]
fn a_stage_on_pairs_computes_what_its_text_says_and_goes_on_exactly() {
    for device in devices() {
        let place = place();
        let whole = run(&mut place.train("whole", device, &[])).expect(0, &["line 10: no \"rejected\""]);
        assert!(
            whole.stdout.contains("pairs: 8 pairs") && whole.stdout.contains("1 pairs left out"),
            "{whole:#?}"
        );
        let steps = lines(&place.path("whole"));
        assert!(steps[..TEXT as usize].iter().all(|step| step.preference.is_none()));

        // Every step of the stage is on all pairs: its loss is that of the checkpoint before it.
        let checkpoint = |step: u64| place.path("whole").join(format!("checkpoints/step-{step:06}"));
        let first = log_probs(&checkpoint(TEXT), device);
        for step in TEXT..STEPS {
            let now = log_probs(&checkpoint(step), device);
            let reward = |pair: usize, side: usize| 0.3 * (now[pair][side].0 - first[pair][side].0);
            let (mut loss, mut earned, mut preferred) = (0.0, [0.0; 2], 0.0);
            for pair in 0..8 {
                let [chosen, rejected] = [0, 1].map(|side| reward(pair, side));
                let softplus = |x: f64| (1.0 + x.exp()).ln();
                loss += (0.9 * softplus(rejected - chosen) + 0.1 * softplus(chosen - rejected)) / 8.0;
                earned = [earned[0] + chosen / 8.0, earned[1] + rejected / 8.0];
                preferred += f64::from(chosen > rejected) / 8.0;
            }
            let (got, near) =
                (&steps[step as usize], |a: f64, b: f64| (a - b).abs() < 2e-5 * b.abs().max(1.0));
            let of = got.preference.expect("what pairs earned");
            assert!(near(got.loss, loss), "{device}, step {}: {} instead of {loss}", step + 1, got.loss);
            assert!(
                near(of.chosen_reward, earned[0]) && near(of.rejected_reward, earned[1]),
                "{of:?} {earned:?}"
            );
            assert!(near(of.margin, earned[0] - earned[1]), "{of:?} {earned:?}");
            // At first nobody is ahead but by rounding.
            assert!(step == TEXT || of.accuracy == preferred, "{of:?} {preferred}");
            let tokens: usize = first.iter().flatten().map(|side| side.1).sum();
            assert_eq!(got.datasets["pairs"].tokens, tokens as u64);
            assert_eq!(got.tokens, TEXT * 4 * 32 + (step + 1 - TEXT) * 8 * 2 * 96);
        }
        let (begun, ended) = (&steps[TEXT as usize], &steps[STEPS as usize - 1]);
        assert!((begun.loss - 2f64.ln()).abs() < 1e-4 && ended.loss < 0.6, "{} {}", begun.loss, ended.loss);

        // Stopped in the stage, and with what the first model says lost.
        for (name, lost) in [("stopped", false), ("lost", true)] {
            let begun = run(place.train(name, device, &["checkpoint.every=100"]).args(["--until", "5"]))
                .expect(0, &[]);
            assert!(begun.stdout.contains("known from an earlier run"), "{begun:#?}");
            if lost {
                std::fs::remove_dir_all(place.path(".tokens")).expect("shared sets");
                std::fs::write(place.path(name).join("data/preferences.reference"), "x").expect("a file");
            }
            let words: &[&str] = if lost { &["is asked again"] } else { &[] };
            let outcome = run(&mut place.resume(name, device)).expect(0, words);
            assert!(!outcome.stderr.contains("another device"), "{outcome:#?}");
            assert!(place.state("whole", STEPS) == place.state(name, STEPS), "{device}: {name} differs");
            assert_eq!(lines(&place.path(name)).len(), STEPS as usize);
        }
        // A row for each answer gives the same but for rounding, with more padding.
        assert!(whole.stdout.contains("pairs are packed: "), "{whole:#?}");
        let alone = ["stages.preferences.packing=false", "checkpoint.every=100"];
        run(&mut place.train("alone", device, &alone)).expect(0, &[]);
        for (packed, alone) in steps.iter().zip(lines(&place.path("alone"))) {
            assert!((packed.loss - alone.loss).abs() < 1e-4 * alone.loss, "{device}: {packed:?}, {alone:?}");
            let tokens = |it: &Metrics| (it.tokens, it.datasets.values().map(|it| it.tokens).sum::<u64>());
            assert_eq!(tokens(packed), tokens(&alone));
        }
        // What "lost" asked again serves another beta.
        let other = run(&mut place.train(
            "other",
            device,
            &["stages.preferences.dpo.beta=0.6", "checkpoint.every=100"],
        ))
        .expect(0, &[]);
        assert!(other.stdout.contains("known from an earlier run"), "{other:#?}");
        assert!(place.state("whole", STEPS) != place.state("other", STEPS));
    }
}

/// Which of the pairs a run holds out.
fn held_out_pairs(run: &Path) -> Vec<usize> {
    let set = TokenSet::open(run.join("data"), &held_out_name("pairs"), Verify::Full).expect("a set");
    let tokenizer = Tokenizer::load(run.join(format!("checkpoints/step-{TEXT:06}"))).expect("its tokenizer");
    let prompts = (0..pair_count(&set)).map(|index| tokenizer.decode(&pair(&set, index).prompt));
    let is_of = |prompt: &str| pairs().iter().position(|[text, ..]| prompt.contains(text.trim()));
    prompts.map(|prompt| is_of(&prompt).expect("one of the pairs")).collect()
}

#[test]
fn every_loss_learns_and_pairs_are_held_out() {
    let place = place();
    let set = |key: &str, value: &str| format!("stages.preferences.{key}={value}");
    for loss in ["sigmoid", "hinge", "ipo", "orpo", "simpo"] {
        let overrides = [
            set("dpo.loss", loss),
            set("epochs", "12"),
            "held_out.fraction=0.3".into(),
            // Slow enough for every loss to fall from step to step.
            "schedule.peak_lr=5e-4".into(),
            "checkpoint.keep=99".into(),
        ];
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let outcome = run(&mut place.train(loss, "reference", &overrides)).expect(0, &[]);
        assert!(outcome.stdout.contains("held-out pairs: loss"), "{outcome:#?}");
        let steps = lines(&place.path(loss));
        let (first, last) = (&steps[TEXT as usize], steps.last().expect("steps"));
        assert!(last.loss < first.loss, "{loss}: {} after {}", last.loss, first.loss);
        let held_out = last.held_out_preference.expect("what held-out pairs earned");
        assert!(held_out.accuracy > 0.5 && held_out.margin.is_finite(), "{loss}: {held_out:?}");
        // The same pairs by the checkpoints themselves, before the stage and at its end.
        let pairs = last.held_out_pairs.as_ref().expect("what became of held-out pairs");
        let checkpoint = |step: u64| place.path(loss).join(format!("checkpoints/step-{step:06}"));
        let [first, now] = [TEXT, last.step].map(|step| log_probs(&checkpoint(step), "reference"));
        let held_out = held_out_pairs(&place.path(loss));
        let likelier = |of: &[[(f64, usize); 2]], per_token: bool| -> Vec<bool> {
            let value = |(sum, count): (f64, usize)| if per_token { sum / count as f64 } else { sum };
            held_out.iter().map(|&i| value(of[i][0]) > value(of[i][1])).collect()
        };
        assert_eq!(pairs.all.pairs, held_out.len() as u64);
        assert_eq!(pairs.datasets["pairs"], pairs.all);
        for (change, per_token) in [(pairs.all.log_prob, false), (pairs.all.per_token, true)] {
            let share = |of: &[bool]| of.iter().filter(|&&it| it).count() as f64 / of.len() as f64;
            let (before, after) = (likelier(&first, per_token), likelier(&now, per_token));
            assert_eq!((change.before, change.now), (share(&before), share(&after)), "{loss}: {change:?}");
        }
        let table = ["likelier (%)", "change (%)"];
        assert!(table.iter().all(|word| outcome.stdout.contains(word)), "{outcome:#?}");
    }
    let chat = place.path("sigmoid").join("checkpoints").join("step-000009/tokenizer_config.json");
    assert!(std::fs::read_to_string(chat).is_ok_and(|text| text.contains("im_start")), "no chat template");
}

#[test]
fn mistakes_in_a_stage_on_pairs_are_placed() {
    let place = place();
    for (set, words) in [
        ("stages.preferences.dpo.beta=0", "stages.1.dpo.beta"),
        ("stages.preferences.dpo.label_smoothing=0.5", "stages.1.dpo.label_smoothing is 0.5"),
        ("stages.preferences.dpo.max_prompt_length=96", "below sequence_length 96"),
        ("stages.preferences.dpo.loss=dpo", "did you mean 'ipo'?"),
        ("stages.text.dpo.beta=0.1", "goes with kind = \"dpo\""),
        ("stages.preferences.mixture={facts=1.0}", "preference pairs"),
        ("datasets.pairs.on_broken=refuse", "line 10: no \"rejected\""),
    ] {
        run(&mut place.train("mistaken", "reference", &[set])).expect(2, &[words]);
    }
    std::fs::write(place.path("pairs.jsonl"), "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"b\"}\n")
        .expect("it is written");
    run(&mut place.train("none", "reference", &[])).expect(2, &["dataset pairs has no pair to train on"]);
}
