//! What is asked of the model between steps: the tasks of its stage, and samples at the stage's end.
//!
//! A step's scores are there whole or not at all, and they follow from its weights alone. So an evaluation that was cut
//! off is made again from the checkpoint of that step, and gives the same lines.

use super::corpus::Corpus;
use super::made::DATA_FOLDER;
use super::records::Records;
use super::samples::{Author, SAMPLES_FILE, SampleText};
use super::scores::{SCORES_FILE, TaskScore, When};
use crate::error::Result;
use crate::eval::runner::{Examinee, Form};
use crate::eval::suite::Suite;
use crate::graph::{Backend, Store};
use crate::nn::Architecture;
use crate::recipes::evaluation::LOSS;
use crate::recipes::{Recipe, Span};
use std::path::Path;
use std::sync::Arc;

/// The evaluations of a run.
pub struct Evaluation {
    /// Made when it is first needed.
    suite: Option<Suite>,
    scores: Records<TaskScore>,
    samples: Records<SampleText>,
}

/// A model after a step.
pub struct Subject<'a> {
    /// The run folder.
    pub run: &'a Path,
    /// The run's recipe.
    pub recipe: &'a Recipe,
    /// Its data.
    pub corpus: &'a Corpus,
    /// Where it computes.
    pub backend: &'a Backend,
    /// The weights.
    pub store: &'a Arc<Store>,
    /// The model's shape in its stage.
    pub architecture: &'a Architecture,
    /// The stage's place.
    pub span: &'a Span,
    /// The run's step.
    pub step: u64,
}

impl Evaluation {
    /// That of a run which goes on at the end of step `step`.
    ///
    /// # Errors
    /// As [`Records::open`].
    pub fn open(run: &Path, step: u64) -> Result<Self> {
        let scores = Records::open(&run.join(SCORES_FILE), step)?;
        let samples = Records::open(&run.join(SAMPLES_FILE), step)?;
        Ok(Evaluation { suite: None, scores, samples })
    }

    /// All scores so far.
    pub fn scores(&self) -> &[TaskScore] {
        &self.scores.lines
    }

    /// All samples so far.
    pub fn samples(&self) -> &[SampleText] {
        &self.samples.lines
    }

    /// Whether something is to be asked after a step of the stage with this span, and has not been yet.
    pub fn is_due(&self, recipe: &Recipe, span: &Span, step: u64) -> bool {
        self.are_scores_due(recipe, span, step) || self.are_samples_due(recipe, span, step)
    }

    fn are_scores_due(&self, recipe: &Recipe, span: &Span, step: u64) -> bool {
        is_scored(recipe, span, step) && !self.scores.has(step)
    }

    fn are_samples_due(&self, recipe: &Recipe, span: &Span, step: u64) -> bool {
        step == span.end_step && !recipe.sample.prompts.is_empty() && !self.samples.has(step)
    }

    /// Asks what is due, and keeps it; returns the scores. `watch` is told what is going on.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), and [`Error::Io`](crate::Error::Io) naming a file.
    pub fn run(&mut self, subject: &Subject, watch: &mut dyn FnMut(&str)) -> Result<&[TaskScore]> {
        let &Subject { recipe, corpus, span, step, .. } = subject;
        let tokenizer = &corpus.tokenizer;
        let template = corpus.template.as_ref().filter(|_| recipe.makes_chat_model(span.stage));
        let form = template.map_or(Form::Plain, Form::Chat);
        let mut ends = vec![tokenizer.eos_id()];
        ends.extend(template.and_then(|it| tokenizer.token_to_id(it.special_token("eos_token")?)));
        let before = self.scores.lines.len();
        if self.are_scores_due(recipe, span, step) {
            let scores = self.scores_of(subject, form, &ends, watch)?;
            self.scores.append(scores)?;
        }
        if self.are_samples_due(recipe, span, step) {
            watch("writing samples");
            let &Subject { backend, store, architecture, .. } = subject;
            let author = Author { backend, store, architecture, tokenizer, form, ends: &ends };
            let texts = author.write(&recipe.sample)?.into_iter().zip(&recipe.sample.prompts);
            let (stage, chat) = (&recipe.stages[span.stage].name, template.is_some());
            let line = |(text, prompt): (_, &String)| SampleText {
                step,
                stage: stage.clone(),
                chat,
                prompt: prompt.clone(),
                text,
            };
            self.samples.append(texts.map(line).collect())?;
        }
        Ok(&self.scores.lines[before..])
    }

    fn scores_of(
        &mut self,
        subject: &Subject,
        form: Form,
        ends: &[u32],
        watch: &mut dyn FnMut(&str),
    ) -> Result<Vec<TaskScore>> {
        let &Subject { recipe, corpus, backend, store, architecture, span, step, .. } = subject;
        let tokenizer = &corpus.tokenizer;
        if self.suite.is_none() {
            watch("evaluation: what the training text states");
            self.suite = Some(Suite::of_run(recipe, &subject.run.join(DATA_FOLDER), None)?);
        }
        let suite = self.suite.as_mut().expect("it has just been made");
        let examinee = Examinee::new(backend, architecture, store.clone(), tokenizer, form, ends.to_vec());
        let stage = recipe.stages[span.stage].name.clone();
        let when = When { step, stage, tokens: span.tokens_at(step) };
        let seed = recipe.evaluation.seed;
        let mut scores = Vec::new();
        for name in recipe.evaluated_at(span.stage) {
            if name == LOSS {
                watch("evaluation: held-out text");
                scores.extend(suite.losses(&examinee)?.iter().map(|loss| TaskScore::of_loss(&when, loss)));
                continue;
            }
            let task = suite.task(name, tokenizer, recipe.items_of(name), seed);
            let count = task.items.len();
            let score =
                examinee.run(&task, &mut |done| watch(&format!("evaluation: {name} {done}/{count}")))?;
            scores.push(TaskScore::of_task(&when, matches!(form, Form::Chat(_)), &score));
        }
        Ok(scores)
    }
}

/// Whether the stage with this span is evaluated after a step: at its end, and each time that so many tokens are done.
fn is_scored(recipe: &Recipe, span: &Span, step: u64) -> bool {
    if step <= span.start_step || recipe.evaluated_at(span.stage).is_empty() {
        return false;
    }
    let periods = |step: u64| span.tokens_at(step).checked_div(recipe.evaluation.every);
    step == span.end_step || periods(step) != periods(step - 1)
}

/// How many evaluations of the stage with this span come after a step.
pub fn evaluations_after(recipe: &Recipe, span: &Span, step: u64) -> u64 {
    if step >= span.end_step {
        return 0;
    }
    let scored = !recipe.evaluated_at(span.stage).is_empty();
    let periods = |step: u64| span.tokens_at(step).checked_div(recipe.evaluation.every).unwrap_or(0);
    let (from, to) = (step.max(span.start_step), span.end_step - 1);
    let between = if scored { (periods(to) - periods(from)).min(to - from) } else { 0 };
    between + u64::from(scored || !recipe.sample.prompts.is_empty())
}
