//! Lists of one element that need no brackets, as on a command line.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Vec<PathBuf>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_str<E: Error>(self, path: &str) -> Result<Vec<PathBuf>, E> {
        Ok(vec![path.into()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<PathBuf>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list))
    }
}

/// A list of paths, or a single one, for `deserialize_with`.
pub(super) fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    deserializer.deserialize_any(OneOrMore)
}
