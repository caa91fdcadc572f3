//! The loss on text or pairs that are never trained on, measured by the scorer on the weights in training.

use super::comparison::{HeldOutPairs, Tally};
use super::corpus::Corpus;
use super::dpo::reward;
use super::fit::held_out_scorer;
use super::metrics::{Preference, Rewards};
use super::reference::{Reference, Side, rows};
use super::stages::PlannedStage;
use crate::data::pairs::{pair, pair_count};
use crate::error::Result;
use crate::graph::{Backend, Store};
use crate::infer::scorer::{Row, Scorer};
use crate::ops::preference_loss::PreferenceLoss;
use crate::recipes::Recipe;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is held out for a stage, and the scorer for it.
pub struct HeldOut {
    scorer: Scorer,
    /// The rows of text that are scored, with the dataset of each.
    pub rows: Vec<(usize, Row)>,
    /// Where the stage is of pairs.
    pairs: Option<(PreferenceLoss, Vec<HeldOutPair>)>,
    /// Names of the recipe's datasets.
    datasets: Vec<String>,
}

struct HeldOutPair {
    dataset: usize,
    /// The chosen and the rejected sequence.
    rows: [Row; 2],
    /// Their log-probabilities under the model that the stage began with.
    first: [f64; 2],
}

/// Mean negative log-likelihood in nats per token, or mean loss of pairs.
pub struct HeldOutLoss {
    /// Over everything.
    pub mean: f64,
    /// Over each dataset.
    pub datasets: Vec<Option<f64>>,
    /// What pairs earned.
    pub preference: Option<Preference>,
    /// How often their chosen answer is the likelier one, and was when the stage began.
    pub pairs: Option<HeldOutPairs>,
}

impl HeldOutLoss {
    /// The losses of the recipe's datasets by name.
    pub fn by_name(&self, recipe: &Recipe) -> BTreeMap<String, f64> {
        let losses = recipe.datasets.iter().zip(&self.datasets);
        losses.filter_map(|(dataset, loss)| Some((dataset.name.clone(), (*loss)?))).collect()
    }

    /// For people: the loss, and what pairs earned.
    pub fn describe(&self) -> String {
        let earned = self.preference.map_or(String::new(), |it| {
            format!(", margin {:.4}, chosen preferred {:.1} %", it.margin, 100.0 * it.accuracy)
        });
        let likelier = self.pairs.as_ref().map_or(String::new(), |it| {
            let [before, now] = [it.all.log_prob.before, it.all.log_prob.now].map(|share| 100.0 * share);
            format!(", likelier {before:.1} -> {now:.1} %")
        });
        format!("loss {:.4}{earned}{likelier}", self.mean)
    }
}

impl HeldOut {
    /// At most `held_out.sequences` rows, or `held_out.pairs` pairs, of each dataset; `None` where nothing is held out.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if memory runs out.
    pub fn new(
        backend: &Backend,
        store: &Arc<Store>,
        recipe: &Recipe,
        stage: &PlannedStage,
        corpus: &Corpus,
        first: Option<&Reference>,
    ) -> Result<Option<Self>> {
        let (rows, pairs) = match stage.work.objective.preference() {
            None => (corpus.held_out_rows(recipe, stage.span.stage, recipe.held_out.sequences), None),
            Some(loss) => {
                let pairs = held_out_pairs(recipe, stage.span.stage, corpus, first);
                (Vec::new(), Some((loss.clone(), pairs)))
            }
        };
        if rows.is_empty() && pairs.as_ref().is_none_or(|(_, pairs)| pairs.is_empty()) {
            return Ok(None);
        }
        let graph = held_out_scorer(&stage.work, stage.shape);
        let datasets = recipe.datasets.iter().map(|dataset| dataset.name.clone()).collect();
        Ok(Some(HeldOut { scorer: Scorer::new(backend, graph, store)?, rows, pairs, datasets }))
    }

    /// The loss with the weights as they are.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device is lost.
    pub fn measure(&mut self) -> Result<HeldOutLoss> {
        let mut sums = vec![(0u64, 0.0f64); self.datasets.len()];
        let (mut rewards, mut all) = (Rewards::default(), Tally::default());
        let mut tallies = vec![Tally::default(); self.datasets.len()];
        let rows: Vec<Row> = self.rows.iter().map(|(_, row)| row.clone()).collect();
        for ((dataset, _), nll) in self.rows.iter().zip(self.scorer.score(&rows)?) {
            sums[*dataset].0 += nll.len() as u64;
            sums[*dataset].1 += nll.iter().map(|&x| x as f64).sum::<f64>();
        }
        if let Some((loss, pairs)) = &self.pairs {
            let rows: Vec<Row> = pairs.iter().flat_map(|pair| pair.rows.clone()).collect();
            let logps = self.scorer.log_probs(&rows)?;
            for (pair, logps) in pairs.iter().zip(logps.as_chunks().0) {
                let counts = pair.rows.each_ref().map(Row::count);
                let reference = if loss.variant.has_reference() { pair.first } else { [0.0; 2] };
                sums[pair.dataset].0 += 1;
                sums[pair.dataset].1 += loss.loss(*logps, reference, counts);
                reward(&mut rewards, loss, *logps, reference, counts);
                for tally in [&mut all, &mut tallies[pair.dataset]] {
                    tally.add(pair.first, *logps, counts);
                }
            }
        }
        let count: u64 = sums.iter().map(|sum| sum.0).sum();
        let mean = sums.iter().map(|sum| sum.1).sum::<f64>() / count as f64;
        let datasets = sums.iter().map(|&(count, sum)| (count > 0).then(|| sum / count as f64)).collect();
        let named = self.datasets.iter().zip(&tallies);
        let of_dataset = |(name, tally): (&String, &Tally)| Some((name.clone(), tally.comparison()?));
        let pairs = all
            .comparison()
            .map(|all| HeldOutPairs { all, datasets: named.filter_map(of_dataset).collect() });
        Ok(HeldOutLoss { mean, datasets, preference: rewards.mean(), pairs })
    }

    /// Bytes allocated, without the weights.
    pub fn allocated(&self) -> u64 {
        self.scorer.allocated()
    }
}

fn held_out_pairs(
    recipe: &Recipe,
    stage: usize,
    corpus: &Corpus,
    first: Option<&Reference>,
) -> Vec<HeldOutPair> {
    let stage = &recipe.stages[stage];
    let limit = recipe.held_out.pairs.unwrap_or(recipe.held_out.sequences) as u64;
    let mut pairs = Vec::new();
    for (dataset, set) in corpus.held_out.iter().enumerate() {
        let its = stage.mixture.contains_key(&recipe.datasets[dataset].name);
        let Some(set) = set.as_ref().filter(|_| its) else { continue };
        pairs.extend((0..pair_count(set).min(limit)).map(|index| HeldOutPair {
            dataset,
            rows: rows(pair(set, index), stage.cut()),
            first: first.map_or([0.0; 2], |first| first.of(Side::HeldOut, dataset, index)),
        }));
    }
    pairs
}
