//! What reading a recipe gives.

use super::schema::Recipe;

/// A recipe as it was read, and what its user should know.
#[derive(Debug)]
pub struct Reading {
    /// The recipe.
    pub recipe: Recipe,
    /// A line for each file that it names and that is not there, with the place of its name.
    pub missing: Vec<String>,
    /// What of the text it leaves out, if it was made for some; see [`Draft::left_out`](super::Draft::left_out).
    pub left_out: Option<String>,
}
