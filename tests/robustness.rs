//! T2: what goes wrong outside the program costs at most the steps since the last checkpoint, and is named.
