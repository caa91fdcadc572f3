//! Reports of runs, as one HTML file that needs nothing else and as Markdown.
//!
//! A run folder is read into a [`run::Run`]; what is to be told of one or several becomes a [`page::Page`], a section a file;
//! [`html`] and [`markdown`] write that. Whatever files hold is plain text in it, and escaped where it is written.

pub mod chart;
mod cost;
mod curves;
mod data;
mod history;
pub mod html;
mod incidents;
mod lines;
pub mod markdown;
pub mod page;
pub mod peak;
mod reproduce;
pub mod run;
mod samples;
mod scores;
mod seeds;
mod summary;

use crate::checkpoint::replace;
use crate::error::{Error, Result};
use crate::files;
use crate::report::quoted;
use crate::train::made::REPORT_FILES;
use crate::train::overview::Overview;
use page::Page;
use peak::Peak;
use run::{Run, axis_of};
use std::path::{Path, PathBuf};

/// The report of these runs, which are one or more. `peaks` are what devices can do.
pub fn page(overviews: Vec<Overview>, peaks: &[Peak]) -> Page {
    let axis = axis_of(&overviews);
    let names = names(&overviews);
    let all = names.into_iter().zip(overviews).map(|(name, it)| Run::read(name, it, axis, peaks));
    let runs: Vec<Run> = all.collect();
    if let [run] = &runs[..] {
        let pairs = curves::of_pairs(run, axis);
        let sections = [summary::stages(run), curves::of_run(run, axis), scores::of_run(run)];
        let rest = [
            samples::of_run(run),
            data::of_run(run),
            cost::of_run(run),
            incidents::of_run(run),
            reproduce::of_run(run),
        ];
        let sections = sections.into_iter().chain(pairs).chain(rest).collect();
        return Page { title: run.name.clone(), lead: summary::lead(run), sections };
    }
    let title = runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(", ");
    let sections = vec![
        summary::side_by_side(&runs),
        curves::of_runs(&runs, axis),
        scores::of_runs(&runs),
        samples::of_runs(&runs),
        cost::of_runs(&runs),
        reproduce::of_runs(&runs),
    ];
    Page { title, lead: Vec::new(), sections }
}

/// What runs are called: the names of their folders, with as much of the path as tells them apart.
fn names(overviews: &[Overview]) -> Vec<String> {
    let parts = |path: &Path| -> Vec<String> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
        absolute.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let all: Vec<Vec<String>> = overviews.iter().map(|run| parts(&run.path)).collect();
    let last = |parts: &[String], count: usize| parts[parts.len().saturating_sub(count)..].join("/");
    let name = |own: &Vec<String>| {
        let clear =
            |count: &usize| all.iter().filter(|other| last(other, *count) == last(own, *count)).count() == 1;
        let count = (1..=own.len()).find(clear).unwrap_or(1);
        last(own, count)
    };
    all.iter().map(name).collect()
}

/// Where a report goes: a folder for both files, or the one file whose ending says what it is.
///
/// # Errors
/// [`Error::Input`] if there is something else that is no report, [`Error::Io`] if it cannot be written.
pub fn write(page: &Page, out: &Path) -> Result<Vec<PathBuf>> {
    let ending = out.extension().map(|it| it.to_ascii_lowercase());
    let only = match ending.as_ref().and_then(|it| it.to_str()) {
        _ if out.is_dir() => None,
        Some("html" | "htm") => Some(0),
        Some("md" | "markdown") => Some(1),
        _ => None,
    };
    let paths = match only {
        Some(kind) => vec![(kind, out.to_path_buf())],
        None => (0..2).map(|kind| (kind, out.join(REPORT_FILES[kind]))).collect(),
    };
    for (_, path) in &paths {
        refuse_other(path)?;
    }
    let folder = if only.is_some() { out.parent().unwrap_or(Path::new("")) } else { out };
    if !folder.as_os_str().is_empty() {
        std::fs::create_dir_all(folder).map_err(|error| elsewhere(folder, &error))?;
    }
    for (kind, path) in &paths {
        let text = if *kind == 0 { html::write(page) } else { markdown::write(page) };
        replace(path, text.as_bytes()).map_err(|error| match error {
            Error::Io { source, .. } => elsewhere(path, &source),
            other => other,
        })?;
    }
    Ok(paths.into_iter().map(|(_, path)| path).collect())
}

fn elsewhere(path: &Path, error: &std::io::Error) -> Error {
    Error::failure(format!("{}: {error}; name another place with --out", path.display()))
}

/// Files of others keep what they hold.
fn refuse_other(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let begin = |of: &str| files::begins_with(path, of.as_bytes());
    match begin(html::BEGIN)? || begin(markdown::BEGIN)? {
        true => Ok(()),
        false => Err(Error::input(format!(
            "{}: there is something that smolter report has not written; move it, or name another place with --out \
             (such as {})",
            path.display(),
            quoted(Path::new("report.html"))
        ))),
    }
}
