//! What a model folder says about generation: `generation_config.json`.

use std::path::Path;

use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::files;

const FILE: &str = "generation_config.json";

/// Tokens that end a text: `eos_token_id` of the file, one or a list of them; `None` where it says nothing.
///
/// # Errors
/// [`Error::Input`] naming the file and the field, [`Error::Io`].
pub(super) fn end_tokens(folder: &Path, vocab_size: usize) -> Result<Option<Vec<u32>>> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read(&path, files::SETTINGS)?;
    let refuse = |why: String| Error::input(format!("{}: {why}", path.display()));
    let fields: Json = serde_json::from_slice(&text).map_err(|e| refuse(format!("not JSON: {e}")))?;
    let ids = match &fields["eos_token_id"] {
        Json::Null => return Ok(None),
        Json::Array(ids) => ids.as_slice(),
        one => std::slice::from_ref(one),
    };
    let id = |value: &Json| {
        let id = value.as_u64().filter(|&id| id < vocab_size as u64).map(|id| id as u32);
        id.ok_or_else(|| {
            refuse(format!("eos_token_id is {value}, but token ids are 0 to {}", vocab_size - 1))
        })
    };
    ids.iter().map(id).collect::<Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_or_several_end_a_text() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(end_tokens(folder.path(), 10).unwrap(), None);
        for (text, expected) in [
            ("{}", None),
            (r#"{"eos_token_id": null}"#, None),
            (r#"{"eos_token_id": 2}"#, Some(vec![2])),
            (r#"{"eos_token_id": [2, 9]}"#, Some(vec![2, 9])),
        ] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert_eq!(end_tokens(folder.path(), 10).unwrap(), expected, "{text}");
        }
        for text in
            ["", "{", r#"{"eos_token_id": 10}"#, r#"{"eos_token_id": [-1]}"#, r#"{"eos_token_id": "2"}"#]
        {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            let error = end_tokens(folder.path(), 10).unwrap_err();
            assert!(error.to_string().contains(FILE) && error.exit_code() == 2, "{text}: {error}");
        }
    }
}
