//! Tables for people.

use super::{Output, shown};
use crate::error::CliError;
use comfy_table::{Cell, CellAlignment, ContentArrangement, presets::NOTHING};

/// A table with a heading.
pub(crate) struct Table {
    table: comfy_table::Table,
    rows: usize,
}

impl Table {
    /// Begins a table with these columns. A column whose name begins with `#` has numbers.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|name| name.trim_start_matches('#').to_uppercase()));
        for (number, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if columns[number].starts_with('#') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, rows: 0 }
    }

    /// Adds a row; what strangers wrote is shown and not obeyed.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells.map(|cell| Cell::new(shown(&cell))));
        self.rows += 1;
    }

    /// Writes the table, or a line that says what would be here.
    pub(crate) fn write(self, output: &mut Output, empty: &str) -> Result<(), CliError> {
        if self.rows == 0 {
            return output.line(empty);
        }
        self.lines().into_iter().try_for_each(|line| output.line(line))
    }

    /// Gives the heading and the rows, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.table.to_string().lines().map(|line| line.trim_end().to_owned()).collect()
    }
}
