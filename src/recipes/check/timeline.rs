//! What follows from when the stages train.

use super::super::consumption;
use super::super::problem::{Problem, Problems, key_path};
use super::super::schema::{Recipe, StageKind};
use super::super::timeline::{Origin, Span, spans};

/// Adds what is wrong with longer sequences and caps of epochs. Everything else about the recipe must have been checked,
/// and lengths in epochs estimated.
pub(in crate::recipes) fn check(problems: &mut Problems, recipe: &Recipe) {
    if ![key_path!["batch"], key_path!["stages"]].iter().all(|&it| problems.are_none_at(it)) {
        return;
    }
    let spans = match spans(recipe) {
        Ok(spans) => spans,
        Err(problem) => return problems.add(problem),
    };
    for span in &spans {
        check_extension(problems, recipe, span);
    }
    if problems.found.is_empty() && !consumption::is_estimated(recipe) {
        consumption::check(problems, recipe, &spans);
    }
}

/// A stage that extends the context must have longer sequences than the state that it goes on from was trained on.
fn check_extension(problems: &mut Problems, recipe: &Recipe, span: &Span) {
    let stage = &recipe.stages[span.stage];
    if stage.kind != StageKind::ExtendContext {
        return;
    }
    match span.origin {
        // How long the sequences of a model from elsewhere were, nobody knows.
        Origin::Noise if recipe.source.is_some() => {}
        Origin::Noise => problems.add(Problem {
            path: key_path!["stages", span.stage, "kind"].to_vec(),
            message: "is 'extend_context', but there is no stage before it to go on from: write kind = \"pretrain\""
                .into(),
        }),
        Origin::Step { stage: before, .. } => {
            let (before, length) = (&recipe.stages[before], stage.sequence_length);
            let shorter = before.sequence_length;
            problems.require(
                length > shorter,
                key_path!["stages", span.stage, "sequence_length"],
                || {
                    format!(
                        "is {length}, but a stage of kind 'extend_context' must exceed the {shorter} of stage {}, which \
                         it goes on from",
                        before.name
                    )
                },
            );
        }
    }
}
