//! The one look of tables in a terminal.

use comfy_table::{CellAlignment, Table};

/// An empty table without lines: the first column to the left, the others to the right.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
