//! `smolter recipes`: the embedded recipes, or the text of one.

use crate::error::Result;
use crate::recipes::{ADAPTING, EMBEDDED, Recipe, embedded, open_model};
use crate::report::out;
use clap::Args;

const EXAMPLES: &str = "Examples:
  smolter recipes                        one line for each
  smolter recipes microcosm > mine.toml  to start from; every key is described in docs/recipe.md
  smolter recipes microcosm --set batch.sequences=8";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Recipes {
    /// Prints this recipe: an embedded one as it is written, with its comments, a file resolved, with all its keys.
    name: Option<String>,
    /// Overrides a key, such as batch.sequences=8, and prints the recipe resolved; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", requires = "name")]
    set: Vec<String>,
}

impl Recipes {
    pub fn run(self) -> Result<()> {
        let Some(name) = self.name else {
            EMBEDDED.iter().try_for_each(|(name, _)| out::line(Recipe::load(name, &[])?.describe()))?;
            return ADAPTING.iter().try_for_each(|(name, text)| {
                let about = text.lines().next().unwrap_or_default().trim_start_matches("# ");
                out::line(format_args!("{name}: {about}"))
            });
        };
        match embedded(&name) {
            Some(text) if self.set.is_empty() => out::print(text),
            _ => out::print(Recipe::read(&name, &self.set, &open_model)?.recipe.to_toml()?),
        }
    }
}
