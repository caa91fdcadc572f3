//! The chat template of a run, where some stage learns from conversations.

use crate::checkpoint::replace;
use crate::error::{Error, Result};
use crate::files;
use crate::recipes::{ChatFormat, Recipe, open_model};
use crate::tokenizer::{ChatTemplate, IM_END, IM_START, Role, Tokenizer};
use std::path::{Path, PathBuf};

/// The template's folder among a run's data.
const KEPT: &str = "chat";

/// Loads the template that the recipe means, and keeps it in `folder`.
pub(super) fn prepare(recipe: &Recipe, tokenizer: &Tokenizer, folder: &Path) -> Result<Option<ChatTemplate>> {
    if !recipe.stages.iter().any(|stage| stage.kind.is_chat()) {
        return Ok(None);
    }
    let own = || match own_folder(recipe)? {
        Some(folder) => ChatTemplate::find(&folder),
        None => Ok(None),
    };
    let refuse = |why: String| Error::input(format!("recipe {}: tokenizer.chat_template {why}", recipe.name));
    let template = match recipe.tokenizer.chat_template {
        Some(ChatFormat::Smollm2) => ChatTemplate::smollm2(),
        Some(ChatFormat::Own) => own()?.ok_or_else(|| {
            refuse("is \"own\", but the tokenizer comes with none: write \"smollm2\"".into())
        })?,
        None => own()?.unwrap_or_else(ChatTemplate::smollm2),
    };
    if template.hash() == ChatTemplate::smollm2().hash()
        && let Some(missing) = [IM_START, IM_END].iter().find(|token| tokenizer.token_to_id(token).is_none())
    {
        return Err(refuse(format!(
            "is SmolLM2's, but the tokenizer has no {missing}: take one that has it"
        )));
    }
    keep(&template, recipe, tokenizer, folder)?;
    Ok(Some(template))
}

/// The template of a run that goes on: that of its checkpoint if that is a chat model, else the one that was kept.
pub(super) fn restore(
    known: Option<ChatTemplate>,
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<Option<ChatTemplate>> {
    if !recipe.stages.iter().any(|stage| stage.kind.is_chat()) {
        return Ok(None);
    }
    match known.or_else(|| ChatTemplate::load(folder.join(KEPT)).ok()) {
        Some(template) => Ok(Some(template)),
        None => prepare(recipe, tokenizer, folder),
    }
}

fn keep(template: &ChatTemplate, recipe: &Recipe, tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    let kept = folder.join(KEPT);
    if kept.symlink_metadata().is_ok() && !kept.is_dir() {
        files::set_aside(&kept)?;
    }
    std::fs::create_dir_all(&kept).map_err(Error::io(&kept))?;
    let files = tokenizer.files(recipe.model.max_position_embeddings, Role::Chat(template))?;
    // The tokenizer itself lies elsewhere.
    files[1..].iter().try_for_each(|(name, bytes)| replace(&kept.join(name), bytes))
}

/// Removes what [`prepare`] has kept in a run's data folder.
pub(super) fn remove(data: &Path) {
    let names = ["tokenizer_config.json", "special_tokens_map.json"];
    let is_ours = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        names.contains(&name.trim_start_matches(".tmp-"))
    };
    files::remove_some(&data.join(KEPT), is_ours);
}

/// Where the tokenizer comes from; none if it is trained.
fn own_folder(recipe: &Recipe) -> Result<Option<PathBuf>> {
    if let Some(path) = &recipe.tokenizer.path {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        return Ok(Some(folder.to_path_buf()));
    }
    let source = recipe.source.as_ref().filter(|_| recipe.tokenizer.train.is_none());
    source.map(|source| Ok(open_model(&source.from)?.path)).transpose()
}
