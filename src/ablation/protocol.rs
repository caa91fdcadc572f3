//! What a stage that tries candidates looks like, as data: SmolLM2's protocols (arXiv 2502.02737, sections 3.1, 5.1 and 5.3).

use crate::recipes::{ScheduleKind, StageKind};

/// What a stage that tries candidates looks like. Everything else is that of a stage of the recipe: sequence length, batch,
/// optimizer, peak learning rate.
#[derive(Debug)]
pub struct Protocol {
    /// What the command calls it.
    pub name: &'static str,
    /// Whether it begins with noise; else with a checkpoint.
    pub from_noise: bool,
    /// The kind of its stage, and of the recipe's stage that gives the conditions.
    pub kind: StageKind,
    /// Share of the candidate in the tokens.
    pub share: f64,
    /// Whether the rest, which is the mixture of the recipe's stage, is without all candidates: they lie in that mixture.
    pub rest_without_candidates: bool,
    /// Whether a candidate of several datasets takes the same of each.
    pub uniform: bool,
    /// Shape of the learning rate; `wsd` falls in a line to zero right behind the rise.
    pub schedule: ScheduleKind,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Tasks about the village that are asked in the end, where the text is about it.
    pub tasks: &'static [&'static str],
}

/// The moments of a model's weights start at zero, and the first updates are all of the full rate: a line to zero has this
/// short rise before it, which the paper, whose moments went on, had not.
const RISE: f64 = 0.05;

/// All protocols.
pub const PROTOCOLS: [Protocol; 5] = [
    Protocol {
        name: "web",
        from_noise: true,
        kind: StageKind::Pretrain,
        share: 1.0,
        rest_without_candidates: false,
        uniform: false,
        schedule: ScheduleKind::Cosine,
        warmup: RISE,
        tasks: &["facts", "facts-cloze", "facts-choice"],
    },
    Protocol {
        name: "math",
        from_noise: false,
        kind: StageKind::Pretrain,
        share: 0.6,
        rest_without_candidates: false,
        uniform: false,
        schedule: ScheduleKind::Wsd,
        warmup: RISE,
        tasks: &["arithmetic"],
    },
    Protocol {
        name: "code",
        from_noise: false,
        kind: StageKind::Pretrain,
        share: 1.0,
        rest_without_candidates: false,
        uniform: true,
        schedule: ScheduleKind::Wsd,
        warmup: RISE,
        tasks: &["programs"],
    },
    Protocol {
        name: "sft",
        from_noise: false,
        kind: StageKind::Sft,
        share: 0.2,
        rest_without_candidates: true,
        uniform: false,
        schedule: ScheduleKind::Cosine,
        warmup: 0.1,
        tasks: &["facts", "arithmetic", "constraints", "stories"],
    },
    Protocol {
        name: "preference",
        from_noise: false,
        kind: StageKind::Dpo,
        share: 1.0,
        rest_without_candidates: false,
        uniform: false,
        schedule: ScheduleKind::Cosine,
        warmup: 0.1,
        tasks: &["preference", "constraints", "facts", "arithmetic"],
    },
];

impl Protocol {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Protocol> {
        PROTOCOLS.iter().find(|protocol| protocol.name == name)
    }
}
