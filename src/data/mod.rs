//! Documents to token shards to training sequences: [`source`] reads documents, [`stream`] fetches them from the Hub
//! first, [`tokenize`](mod@tokenize) writes them into [`shard`]s as what their [`contents`] are, which runs
//! [share](shared), [`mixture`] says which window of which dataset each training sequence is.

pub mod contents;
pub mod conversation;
pub mod microcosm;
pub mod mixture;
pub mod pairs;
pub mod shard;
pub mod shared;
pub mod source;
pub mod stream;
pub mod tokenize;
