//! Runs tasks on a model: choices by the scorer, answers by the generator, always the likeliest token.

use super::task::{Expected, Item, Task};
use crate::error::Result;
use crate::graph::{Backend, Store};
use crate::infer;
use crate::infer::generator::{CHUNK, Generator, GeneratorGraph, Sizes};
use crate::infer::scorer::{Output, Row, Scorer, ScorerGraph, buckets};
use crate::infer::writer::Writer;
use crate::model::ModelFolder;
use crate::nn::Architecture;
use crate::ops::sample::Sampling;
use crate::tokenizer::{ChatTemplate, Message, Tokenizer};
use serde::Serialize;
use std::sync::Arc;

/// How a question is put to a model.
#[derive(Clone, Copy)]
pub enum Form<'m> {
    /// As text to continue: `Question: ...`, a line with `Answer:`. The answer is the rest of that line.
    Plain,
    /// As a message in a chat.
    Chat(&'m ChatTemplate),
}

/// What a model made of a task.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// The task's name.
    pub task: String,
    /// Its answers.
    pub answers: Vec<Answer>,
    /// Share of right answers by guessing.
    pub guessing: f64,
}

/// What a model made of an item.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The question.
    pub question: String,
    /// What is right.
    pub expected: String,
    /// What the model chose or said.
    pub answer: String,
    /// Whether it is right.
    pub right: bool,
}

impl Score {
    /// Right answers.
    pub fn right(&self) -> usize {
        self.answers.iter().filter(|it| it.right).count()
    }

    /// Share of right answers.
    pub fn accuracy(&self) -> f64 {
        self.right() as f64 / self.answers.len().max(1) as f64
    }

    /// Standard error of the accuracy, sqrt(p (1 - p) / (n - 1)).
    pub fn standard_error(&self) -> f64 {
        let p = self.accuracy();
        (p * (1.0 - p) / (self.answers.len().max(2) - 1) as f64).sqrt()
    }

    /// [`above_guessing`] of the accuracy.
    pub fn above_guessing(&self) -> f64 {
        above_guessing(self.accuracy(), self.guessing, self.answers.len())
    }
}

/// How far the share of right answers is above guessing, in standard errors of guessing on as many items.
pub fn above_guessing(accuracy: f64, guessing: f64, items: usize) -> f64 {
    let n = items.max(1) as f64;
    let p = guessing.max(0.5 / n);
    (accuracy - guessing) / (p * (1.0 - p) / n).sqrt()
}

/// Most sequences that are generated side by side, and the bytes that their keys and values may take.
const BATCH: usize = 64;
const CACHE: u64 = 256 << 20;
/// Tokens per pass of the scorer, about.
const TOKENS: usize = 2048;

/// A model that tasks are run on.
pub struct Examinee<'m> {
    backend: &'m Backend,
    architecture: &'m Architecture,
    tokenizer: &'m Tokenizer,
    form: Form<'m>,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    /// The weights, shared by the graphs of all tasks.
    store: Arc<Store>,
}

/// Told how many items of a task are done.
pub type Watch<'w> = dyn FnMut(usize) + 'w;

impl<'m> Examinee<'m> {
    /// The model whose weights are in `store`, be it one that is in training. Answers end with one of `ends`, or the end
    /// of a document.
    pub fn new(
        backend: &'m Backend,
        architecture: &'m Architecture,
        store: Arc<Store>,
        tokenizer: &'m Tokenizer,
        form: Form<'m>,
        mut ends: Vec<u32>,
    ) -> Self {
        ends.push(tokenizer.eos_id());
        Examinee { backend, architecture, tokenizer, form, ends, store }
    }

    /// Loads the weights of a model folder.
    ///
    /// # Errors
    /// Those of [`infer::load`] and [`ModelFolder::expect_vocabulary`].
    pub fn load(
        backend: &'m Backend,
        model: &'m ModelFolder,
        tokenizer: &'m Tokenizer,
        form: Form<'m>,
    ) -> Result<Self> {
        model.expect_vocabulary(tokenizer)?;
        let architecture = &model.architecture;
        let sizes = Sizes { batch: 1, context: architecture.positions().min(CHUNK), chunk: 1 };
        let generator = GeneratorGraph::new(architecture, sizes)?;
        let scorer = ScorerGraph::new(architecture, &buckets(CHUNK, TOKENS), Output::Nll);
        let store = infer::load(backend, model, &[&generator.graph, &scorer.graph])?;
        Ok(Self::new(backend, architecture, store, tokenizer, form, model.end_tokens.clone()))
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &'m Tokenizer {
        self.tokenizer
    }

    /// Its shape.
    pub fn architecture(&self) -> &'m Architecture {
        self.architecture
    }

    /// Negative log-likelihood in nats of what is scored of each row.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    pub fn score(&self, rows: &[Row]) -> Result<Vec<Vec<f32>>> {
        let Some(longest) = rows.iter().map(|row| row.tokens.len()).max() else { return Ok(Vec::new()) };
        let longest = self.room(longest);
        let graph = ScorerGraph::new(self.architecture, &buckets(longest, TOKENS), Output::Nll);
        Scorer::new(self.backend, graph, &self.store)?.score(rows)
    }

    /// The length of sequences that graphs are built for where so many tokens are needed: one of few, so that what was
    /// compiled for one task does for others.
    fn room(&self, tokens: usize) -> usize {
        tokens.next_power_of_two().max(CHUNK).min(self.architecture.positions())
    }

    /// Gives all items of a task to the model.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device), [`Error::Input`](crate::Error::Input) of the chat template.
    pub fn run(&self, task: &Task, watch: &mut Watch) -> Result<Score> {
        let (mut chosen, mut written) = (Vec::new(), Vec::new());
        for (i, item) in task.items.iter().enumerate() {
            match &item.expected {
                Expected::Choice { choices, gold } => chosen.push((i, choices, *gold)),
                _ => written.push(i),
            }
        }
        let mut texts = vec![(String::new(), false); task.items.len()];
        self.choose(task, &chosen, &mut texts)?;
        watch(chosen.len());
        self.write(task, &written, &mut texts, &mut |done| watch(chosen.len() + done))?;
        let answer = |(item, (answer, right)): (&Item, (String, bool))| Answer {
            question: question(item),
            expected: item.expected.told(),
            answer,
            right,
        };
        let guessing = task.items.iter().map(|item| item.guess).sum::<f64>() / task.items.len().max(1) as f64;
        let answers = task.items.iter().zip(texts).map(answer).collect();
        Ok(Score { task: task.name.clone(), answers, guessing })
    }

    /// The prompt of an item as tokens, and what separates it from the answer.
    fn prompt(&self, item: &Item) -> Result<(Vec<u32>, &'static str)> {
        match &self.form {
            Form::Plain => {
                let text = if item.text.is_empty() { String::new() } else { format!("{}\n\n", item.text) };
                let text = format!("{text}Question: {}\nAnswer:", item.question);
                Ok((self.tokenizer.encode(&text)?, " "))
            }
            Form::Chat(template) => {
                let message = Message::new("user", question(item));
                Ok((template.encode(self.tokenizer, &[message], true)?, ""))
            }
        }
    }

    /// The choice of the highest log-probability per character.
    fn choose(
        &self,
        task: &Task,
        items: &[(usize, &Vec<String>, usize)],
        texts: &mut [(String, bool)],
    ) -> Result<()> {
        let mut rows = Vec::new();
        for (i, choices, _) in items {
            let (prompt, gap) = self.prompt(&task.items[*i])?;
            for choice in *choices {
                let ending = self.tokenizer.encode(&format!("{gap}{choice}"))?;
                let kept = self.architecture.positions().saturating_sub(ending.len());
                rows.push(Row::ending(last(&prompt, kept), &ending));
            }
        }
        let scores = self.score(&rows)?;
        let mut scores = scores.iter();
        for (i, choices, gold) in items {
            let of_choice = |choice: &String| {
                let nll: f64 = scores.next().into_iter().flatten().map(|&nll| f64::from(nll)).sum();
                -nll / choice.chars().count().max(1) as f64
            };
            let values: Vec<f64> = choices.iter().map(of_choice).collect();
            let best = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0);
            texts[*i] = (choices[best].clone(), best == *gold);
        }
        Ok(())
    }

    /// The likeliest continuation.
    fn write(
        &self,
        task: &Task,
        items: &[usize],
        texts: &mut [(String, bool)],
        watch: &mut Watch,
    ) -> Result<()> {
        let positions = self.architecture.positions();
        let mut prompts: Vec<(usize, Vec<u32>)> = Vec::new();
        for &i in items {
            let (prompt, _) = self.prompt(&task.items[i])?;
            prompts.push((i, last(&prompt, positions.saturating_sub(task.max_tokens).max(1)).to_vec()));
        }
        let Some(longest) = prompts.iter().map(|(_, prompt)| prompt.len()).max() else { return Ok(()) };
        // Prompts of like length go together.
        prompts.sort_by_key(|(_, prompt)| prompt.len());
        let context = self.room(longest + task.max_tokens);
        let fit = CACHE / (self.architecture.cache_bytes() * context as u64);
        let batch = prompts.len().min(BATCH).min(fit.max(1) as usize);
        let sizes = Sizes { batch, context, chunk: CHUNK.min(context) };
        let graph = GeneratorGraph::new(self.architecture, sizes)?;
        let mut generator = Generator::new(self.backend, graph, &self.store)?;
        let stops: &[String] = &match self.form {
            Form::Plain => vec!["\n".to_owned()],
            Form::Chat(_) => Vec::new(),
        };
        for (done, group) in prompts.chunks(sizes.batch).enumerate() {
            watch(done * sizes.batch);
            let mut all: Vec<Vec<u32>> = group.iter().map(|(_, prompt)| prompt.clone()).collect();
            all.resize(sizes.batch, Vec::new());
            generator.prompt(&all)?;
            let writers = group.iter().map(|_| Writer::new(self.tokenizer, &self.ends, stops));
            let mut writers: Vec<Writer> = writers.collect::<Result<_>>()?;
            for _ in 0..task.max_tokens {
                let active: Vec<bool> =
                    (0..sizes.batch).map(|b| writers.get(b).is_some_and(|writer| !writer.ended)).collect();
                let choices = generator.step(&Sampling::greedy(), &vec![0.0; sizes.batch], &active)?;
                if choices.iter().all(Option::is_none) {
                    break;
                }
                for (writer, choice) in writers.iter_mut().zip(choices) {
                    choice.into_iter().for_each(|choice| drop(writer.push(choice)));
                }
            }
            for ((i, _), writer) in group.iter().zip(&mut writers) {
                if !writer.ended {
                    writer.finish();
                }
                let text = writer.text.trim().to_owned();
                texts[*i] = (text.clone(), task.items[*i].expected.accepts(&text));
            }
        }
        Ok(())
    }
}

/// Text and question of an item.
fn question(item: &Item) -> String {
    if item.text.is_empty() { item.question.clone() } else { format!("{}\n\n{}", item.text, item.question) }
}

/// At most the last `count` tokens.
fn last(tokens: &[u32], count: usize) -> &[u32] {
    &tokens[tokens.len().saturating_sub(count)..]
}
