//! `smolter init`: a recipe for the user's own text.

use super::is_run;
use crate::error::{Error, Result};
use crate::recipes::{Draft, draft};
use crate::report::{out, quoted};
use crate::train::saved::RECIPE_FILE;
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "Examples:
  smolter init my.txt                writes recipe.toml here
  smolter init project data/*.jsonl  writes project/recipe.toml
  smolter init mine.toml books/      writes mine.toml
  smolter train mine.toml";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Init {
    /// Where the recipe goes, a folder or a .toml file that does not exist yet (by default ./recipe.toml); then text:
    /// .jsonl, .json, .parquet files or plain text, or folders of .txt and these (by default what the folder holds).
    #[arg(value_name = "DIR, FILE or TEXT", default_value = ".")]
    paths: Vec<PathBuf>,
}

impl Init {
    pub fn run(self) -> Result<()> {
        let (file, text) = self.places();
        let folder = file.parent().unwrap_or(Path::new(""));
        if file.symlink_metadata().is_ok() {
            let what = if is_run(folder) { "belongs to a run" } else { "exists already" };
            return Err(Error::input(format!(
                "{}: {what}, and is not overwritten: name another",
                file.display()
            )));
        }
        if let [only] = &text[..]
            && !only.exists()
        {
            return Err(Error::input(format!(
                "{}: no text there: name files or folders of it behind, such as smolter init project my.txt",
                only.display()
            )));
        }
        let Draft { text, left_out } = draft(&text, folder)?;
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let mut new = std::fs::File::create_new(&file).map_err(Error::io(&file))?;
        new.write_all(text.as_bytes()).map_err(Error::io(&file))?;
        left_out.iter().for_each(out::warn);
        let file = quoted(&file);
        // The file is what this is for.
        out::say(format_args!("wrote {file}\nnext: smolter plan {file}\n      smolter train {file}"));
        Ok(())
    }

    /// The recipe's file, and the text that it is for.
    fn places(&self) -> (PathBuf, Vec<PathBuf>) {
        let (first, rest) = self.paths.split_first().expect("there is a default");
        if first.extension().is_some_and(|it| it == "toml") {
            let here = first.parent().filter(|it| *it != Path::new("")).unwrap_or(Path::new("."));
            return (first.clone(), if rest.is_empty() { vec![here.into()] } else { rest.into() });
        }
        // A folder, unless it is a file, or is named like one.
        if first.is_file() || !first.is_dir() && first.extension().is_some() {
            return (RECIPE_FILE.into(), self.paths.clone());
        }
        let text = if rest.is_empty() { vec![first.clone()] } else { rest.into() };
        (first.join(RECIPE_FILE), text)
    }
}
