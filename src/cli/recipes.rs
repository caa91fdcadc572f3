//! `smolter recipes`: the embedded recipes, or the text of one.

use crate::error::Result;
use crate::recipes::{EMBEDDED, Recipe};
use crate::report::out;
use clap::Args;

#[derive(Args)]
pub struct Recipes {
    /// Prints this recipe, resolved, as a TOML file to start from.
    name: Option<String>,
    /// Overrides a key, such as batch.sequences=8; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Recipes {
    pub fn run(self) -> Result<()> {
        match self.name {
            Some(name) => out::print(Recipe::load(&name, &self.set)?.to_toml()?)?,
            None => {
                for (name, _) in EMBEDDED {
                    out::line(Recipe::load(name, &[])?.describe())?;
                }
            }
        }
        Ok(())
    }
}
