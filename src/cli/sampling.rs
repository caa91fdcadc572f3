//! Flags that say how tokens are drawn.

use crate::ops::sample::Sampling;
use clap::Args;

#[derive(Args, Clone)]
pub struct SamplingFlags {
    /// Divides the logits; 0 always takes the likeliest token [default: 0, chat 0.2].
    #[arg(long, alias = "temp", value_parser = at_least_0)]
    temperature: Option<f32>,
    /// Draws from so many of the likeliest tokens; 0 from all.
    #[arg(long, default_value_t = 0, value_parser = whole::<u32>)]
    top_k: u32,
    /// Draws from the likeliest tokens up to this mass [default: 1, chat 0.9].
    #[arg(long, value_parser = share)]
    top_p: Option<f32>,
    /// Draws from tokens of at least this share of the likeliest one's probability.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    min_p: f32,
    /// Divides the logits of tokens that have occurred.
    #[arg(long, default_value_t = 1.0, value_parser = above_0)]
    repetition_penalty: f32,
    /// Seed of the random choices.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>)]
    pub seed: u64,
    /// Ends the text before this string or special token; may be repeated. The model's own end tokens always end it.
    #[arg(long)]
    pub stop: Vec<String>,
}

impl SamplingFlags {
    /// The settings, with the command's own defaults.
    pub fn settings(&self, temperature: f32, top_p: f32) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(temperature),
            top_k: self.top_k,
            top_p: self.top_p.unwrap_or(top_p),
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        }
    }
}

/// The settings that [`set`] knows.
pub const SETTINGS: [&str; 5] = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty"];

/// The values of [`SETTINGS`].
pub fn values(sampling: &Sampling) -> [String; 5] {
    let Sampling { temperature, top_k, top_p, min_p, repetition_penalty } = sampling;
    [
        temperature.to_string(),
        top_p.to_string(),
        top_k.to_string(),
        min_p.to_string(),
        repetition_penalty.to_string(),
    ]
}

/// Changes the setting called `name`, one of [`SETTINGS`].
///
/// # Errors
/// Says what to give.
pub fn set(sampling: &mut Sampling, name: &str, value: &str) -> Result<(), String> {
    match name {
        "temperature" => sampling.temperature = at_least_0(value)?,
        "top_p" => sampling.top_p = share(value)?,
        "top_k" => sampling.top_k = whole(value)?,
        "min_p" => sampling.min_p = share(value)?,
        "repetition_penalty" => sampling.repetition_penalty = above_0(value)?,
        _ => return Err(format!("no setting {name}")),
    }
    Ok(())
}

fn number(text: &str, fits: impl Fn(f32) -> bool, what: &str) -> Result<f32, String> {
    text.parse().ok().filter(|&x: &f32| x.is_finite() && fits(x)).ok_or(format!("give a number {what}"))
}

pub fn whole<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "give a whole number of at least 0".into())
}

fn at_least_0(text: &str) -> Result<f32, String> {
    number(text, |x| x >= 0.0, "of at least 0")
}

fn above_0(text: &str) -> Result<f32, String> {
    number(text, |x| x > 0.0, "above 0")
}

fn share(text: &str) -> Result<f32, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "from 0 to 1")
}
