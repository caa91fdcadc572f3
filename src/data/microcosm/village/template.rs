//! Templates: `[a|b]` is one of its alternatives, `{name}` a slot, `{a name}` a slot with its indefinite article. Sentences
//! begin with a capital.

use super::super::phrase::with_article;
use super::super::phrase::{alternatives, bracketed, capitalise};

/// The text of a template without alternatives.
///
/// # Panics
/// If a slot has no value: templates are part of the program.
pub(super) fn fill(template: &str, slots: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        let (slot, after) = bracketed(&rest[at..]);
        let (article, name) = slot.strip_prefix("a ").map_or((false, slot), |name| (true, name));
        let value = slots.iter().find(|(it, _)| *it == name);
        let value = value.unwrap_or_else(|| panic!("the slot {{{slot}}} of {template:?} has no value")).1;
        text += &if article { with_article(value) } else { value.to_owned() };
        rest = after;
    }
    capitalise(&(text + rest))
}

/// All texts that the alternatives of a template allow; its slots stay.
pub(super) fn expansions(template: &str) -> Vec<String> {
    let Some(at) = template.find('[') else { return vec![template.to_owned()] };
    let (inside, after) = bracketed(&template[at..]);
    let one = |choice: &&str| expansions(&format!("{}{choice}{after}", &template[..at]));
    alternatives(inside).iter().flat_map(one).collect()
}
