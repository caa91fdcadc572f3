//! Supervised fine-tuning: next-token prediction on conversations, of all tokens or of the assistant's. Packed, they are the
//! windows of pretraining; here each has a row of its own.

use super::corpus::{Corpus, Rows};
use super::objective::{Batch, Batches, Shape};
use super::pretrain::{draw, exhausted};
use crate::data::mixture::{Mixture, Sequence};
use crate::error::Result;
use crate::ops::host::IGNORE;
use crate::tokenizer::Judged;
use std::ops::Range;
use std::sync::Arc;

/// Conversations, one in each sequence, which ends with padding; and between them whole sequences of text.
pub struct Conversations {
    /// The token sets.
    pub corpus: Arc<Corpus>,
    /// Which row comes when: its windows are rows.
    pub mixture: Mixture,
    /// The rows of each dataset; none of text, and of those that the stage leaves out.
    pub rows: Vec<Option<Arc<Rows>>>,
    /// Which tokens count.
    pub judged: Judged,
}

impl Conversations {
    /// Appends a row of a dataset of conversations.
    fn append(&self, batch: &mut Batch, dataset: usize, range: &Range<u64>, length: usize) {
        let tokens = self.corpus.sets[dataset].tokens(range.clone());
        let mut ids = tokens.clone();
        ids.resize(length, self.corpus.tokenizer.eos_id());
        let mut labels = tokens[1..].to_vec();
        labels.resize(length, IGNORE);
        let mut weights: Vec<f32> = match self.judged {
            Judged::All => vec![1.0; tokens.len() - 1],
            Judged::Assistant => {
                let judged = self.corpus.judged[dataset].as_ref().expect("the stage asks for it");
                judged.tokens(range.start + 1..range.end).into_iter().map(|judged| judged as f32).collect()
            }
        };
        weights.resize(length, 0.0);
        batch.ids.extend(ids);
        batch.labels.extend(labels);
        batch.weights.extend(weights);
        batch.datasets.push(dataset);
    }

    /// Appends a window of text.
    fn append_text(
        &self,
        batch: &mut Batch,
        Sequence { dataset, start_token: start, .. }: Sequence,
        length: usize,
    ) {
        let window = self.corpus.sets[dataset].tokens(start..start + length as u64 + 1);
        batch.ids.extend_from_slice(&window[..length]);
        batch.labels.extend_from_slice(&window[1..]);
        batch.weights.extend(vec![1.0; length]);
        batch.datasets.push(dataset);
    }
}

impl Batches for Conversations {
    fn step(&self, step: u64, shape: Shape) -> Result<Vec<Batch>> {
        draw(&self.mixture, step, shape, |batch, sequence| match &self.rows[sequence.dataset] {
            Some(rows) => {
                self.append(batch, sequence.dataset, &rows.rows[sequence.window as usize], shape.length)
            }
            None => self.append_text(batch, sequence, shape.length),
        })
    }

    fn notes(&self, steps: u64, shape: Shape) -> Result<Vec<String>> {
        let mut notes = exhausted(&self.mixture, steps, shape)?;
        for (dataset, rows) in self.mixture.datasets().iter().zip(&self.rows) {
            let Some(rows) = rows else { continue };
            let (name, all) = (&dataset.name, rows.rows.len() as u64 + rows.left_out);
            if rows.cut > 0 {
                notes.push(format!(
                    "{name}: {} of {all} conversations are too long and end behind an earlier turn",
                    rows.cut
                ));
            }
            if rows.left_out > 0 {
                let why = "have no answer that fits and are left out";
                notes.push(format!("{name}: {} of {all} conversations {why}", rows.left_out));
            }
        }
        Ok(notes)
    }
}
