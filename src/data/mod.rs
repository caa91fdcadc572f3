//! Documents to token shards to training sequences: [`source`] reads documents, [`tokenize`](mod@tokenize)
//! writes them into [`shard`]s, [`mixture`] says which window of which dataset each training sequence is.

pub mod microcosm;
pub mod mixture;
pub mod shard;
pub mod source;
pub mod tokenize;
