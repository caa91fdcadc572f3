//! Conversations in a recipe: which datasets are some, and what only they may have.

use super::problem::{Problems, key_path};
use super::schema::{Dataset, Recipe, Stage, StageKind};
use super::timeline::lineage;
use crate::data::microcosm::village::Answers;
use crate::tokenizer::Judged;

impl StageKind {
    /// Whether it learns from conversations, so that its model is a chat model.
    pub fn is_chat(self) -> bool {
        matches!(self, StageKind::Sft | StageKind::Dpo)
    }
}

impl Recipe {
    /// Whether the model is a chat model after some steps of a stage: it has learned from conversations, there or before.
    pub fn makes_chat_model(&self, stage: usize) -> bool {
        let spans = self.spans();
        let before = lineage(&spans, stage).into_iter().map(|(before, _)| before);
        before.chain([stage]).any(|stage| self.stages[stage].kind.is_chat())
    }

    /// The stages with this dataset in their mixture.
    fn stages_with<'a>(&'a self, dataset: &'a str) -> impl Iterator<Item = &'a Stage> {
        self.stages.iter().filter(move |stage| stage.mixture.contains_key(dataset))
    }

    /// Whether a dataset, given by its index, is of conversations.
    pub fn is_chat(&self, dataset: usize) -> bool {
        let Dataset { name, replay, .. } = &self.datasets[dataset];
        !replay && self.stages_with(name).any(|stage| stage.kind == StageKind::Sft)
    }

    /// Whether a dataset, given by its index, is of preference pairs.
    pub fn is_of_pairs(&self, dataset: usize) -> bool {
        self.stages_with(&self.datasets[dataset].name).any(|stage| stage.kind == StageKind::Dpo)
    }

    /// Whether it must be known of a dataset of conversations which tokens are the assistant's.
    pub fn needs_judged(&self, dataset: usize) -> bool {
        let needs = |stage: &Stage| {
            stage.kind == StageKind::Sft && (stage.judged() == Judged::Assistant || !stage.packs())
        };
        self.is_chat(dataset) && self.stages_with(&self.datasets[dataset].name).any(needs)
    }
}

/// What a kind of stage learns from.
fn what(kind: StageKind) -> &'static str {
    match kind {
        StageKind::Pretrain | StageKind::ExtendContext => "text",
        StageKind::Sft => "conversations",
        StageKind::Dpo => "preference pairs",
    }
}

/// What a generated dataset is.
fn of_answers(answers: Option<Answers>) -> &'static str {
    match answers {
        None => "text",
        Some(Answers::Conversations(_)) => what(StageKind::Sft),
        Some(Answers::Pairs) => what(StageKind::Dpo),
    }
}

pub(super) fn check_stage(problems: &mut Problems, i: usize, stage: &Stage) {
    let judges = stage.loss_on.is_none() || stage.kind == StageKind::Sft;
    problems.require(judges, key_path!["stages", i, "loss_on"], || "is only for kind = \"sft\"".into());
    let may_pack = stage.packing.is_none() || stage.kind.is_chat();
    problems.require(may_pack, key_path!["stages", i, "packing"], || {
        "is only for kind = \"sft\" and \"dpo\"".into()
    });
    problems.require(
        !stage.document_mask || stage.kind != StageKind::Dpo,
        key_path!["stages", i, "document_mask"],
        || "is for text and conversations, but answers of pairs never see each other: leave it out".into(),
    );
    problems.require(!stage.document_mask || stage.packs(), key_path!["stages", i, "document_mask"], || {
        "is for sequences of several documents, but packing is false: leave one of them out".into()
    });
}

/// What else may be meant where a stage of kind `sft` has text in its mixture.
const REMEDY: &str = ", or set its replay = true, by which such stages learn from its text";

/// What concerns text that stages of kind `sft` learn from.
fn check_replay(problems: &mut Problems, recipe: &Recipe, i: usize) {
    let dataset = &recipe.datasets[i];
    let name = &dataset.name;
    let given =
        [("columns", !dataset.columns.are_usual()), ("decontaminate", !dataset.decontaminate.is_empty())];
    for (key, given) in given {
        problems.require(!given, key_path!["datasets", i, key], || {
            format!("is for conversations, but '{name}' is text, by its replay = true: leave one of them out")
        });
    }
    let answers = dataset.microcosm.as_ref().and_then(|kind| Answers::named(kind));
    problems.require(answers.is_none(), key_path!["datasets", i, "replay"], || {
        format!("is for text, but microcosm generates {}: leave it out", of_answers(answers))
    });
    let pairs = recipe.stages_with(name).find(|stage| stage.kind == StageKind::Dpo);
    problems.require(pairs.is_none(), key_path!["datasets", i, "replay"], || {
        let stage = pairs.map_or("", |stage| &stage.name);
        format!("is for text, but stage '{stage}' needs preference pairs: leave it out")
    });
}

/// A stage of kind `sft` without conversations would be pretraining.
fn check_conversations(problems: &mut Problems, recipe: &Recipe) {
    for (i, stage) in recipe.stages.iter().enumerate().filter(|(_, stage)| stage.kind == StageKind::Sft) {
        let mut mixed = recipe.datasets.iter().filter(|it| stage.mixture.contains_key(&it.name)).peekable();
        let text_alone = mixed.peek().is_some() && mixed.all(|dataset| dataset.replay);
        problems.require(!text_alone, key_path!["stages", i, "mixture"], || {
            "has no conversations, only text (replay = true): add some, or take kind = \"pretrain\"".into()
        });
    }
}

pub(super) fn check_datasets(problems: &mut Problems, recipe: &Recipe) {
    check_conversations(problems, recipe);
    for (i, dataset) in recipe.datasets.iter().enumerate() {
        let name = &dataset.name;
        let answers = dataset.microcosm.as_ref().and_then(|kind| Answers::named(kind));
        if dataset.replay {
            check_replay(problems, recipe, i);
            continue;
        }
        let chat: Vec<&Stage> = recipe.stages_with(name).filter(|stage| stage.kind.is_chat()).collect();
        let Some(first) = chat.first() else {
            let given = [
                ("columns", !dataset.columns.are_usual()),
                ("decontaminate", !dataset.decontaminate.is_empty()),
            ];
            for (key, given) in given {
                problems.require(!given, key_path!["datasets", i, key], || {
                    format!("is for conversations, but no stage of kind 'sft' or 'dpo' has '{name}' in its mixture")
                });
            }
            let made = answers.and_then(|it| recipe.stages_with(name).next().map(|stage| (it, stage)));
            problems.require(made.is_none(), key_path!["datasets", i, "microcosm"], || {
                let stage = made.map_or("", |(_, stage)| &stage.name);
                format!("generates {}, but stage '{stage}' needs text", of_answers(answers))
            });
            continue;
        };
        let another = recipe.stages_with(name).find(|stage| stage.kind != first.kind);
        let made = of_answers(answers);
        let fits = another.is_some() || dataset.microcosm.is_none() || made == what(first.kind);
        problems.require(fits, key_path!["datasets", i, "microcosm"], || {
            let remedy = if answers.is_none() && first.kind == StageKind::Sft { REMEDY } else { "" };
            format!("generates {made}, but stage '{}' needs {}{remedy}", first.name, what(first.kind))
        });
        problems.require(another.is_none(), key_path!["datasets", i], || {
            let (stage, kind) = another.map_or(("", first.kind), |stage| (&stage.name, stage.kind));
            let remedy = if !kind.is_chat() && first.kind == StageKind::Sft { REMEDY } else { "" };
            format!(
                "('{name}') is {} in stage '{stage}' and {} in stage '{}': write it twice, with two names{remedy}",
                what(kind),
                what(first.kind),
                first.name
            )
        });
        // Its passes are counted in sequences that it fills.
        let form =
            |stage: &Stage| (!stage.packs() || stage.kind == StageKind::Dpo).then_some(stage.sequence_length);
        let other = chat.iter().find(|stage| form(stage) != form(first));
        problems.require(other.is_none(), key_path!["datasets", i], || {
            let (first, other) = (&first.name, other.map_or("", |stage| &stage.name));
            format!(
                "('{name}') becomes other sequences in stage '{first}' (packing, sequence_length) than in stage '{other}': \
                 write it twice, with two names"
            )
        });
        let what = what(first.kind);
        let given = [("score", dataset.score.is_some()), ("min_tokens", dataset.min_tokens.is_some())];
        for (key, given) in given {
            problems.require(!given, key_path!["datasets", i, key], || {
                format!("is for text, but '{name}' is of {what}: leave it out")
            });
        }
        let clean = dataset.decontaminate.is_empty() || first.kind == StageKind::Sft;
        problems.require(clean, key_path!["datasets", i, "decontaminate"], || {
            format!("is for conversations, but '{name}' is of preference pairs")
        });
        for (j, path) in dataset.decontaminate.iter().enumerate() {
            problems.require(
                !path.as_os_str().is_empty(),
                key_path!["datasets", i, "decontaminate", j],
                || "is empty, but must name a benchmark's file".into(),
            );
        }
    }
}
