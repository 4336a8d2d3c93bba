//! Tables for people: aligned, as wide as the terminal, coloured by state; whole where nobody looks at them on a terminal.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};

use super::show;

/// As much of a text is shown on a terminal, in characters: what else there is, `--format json` has.
const SHOWN_MAX: usize = 300;
/// A text column is not made narrower than this, nor one of names: rather, the terminal breaks the lines.
const TEXT_WIDTH_MIN: u16 = 12;
const NAME_WIDTH_MIN: u16 = 16;

/// What colours a cell may have. The table counts no columns for colour, so that it is written as marks without a width, which no
/// text has that was made tame, and put in place when the lines are made.
const COLOURS: [(char, &str); 6] = [
    ('\u{206a}', show::RED),
    ('\u{206b}', show::GREEN),
    ('\u{206c}', show::YELLOW),
    ('\u{206d}', show::BLUE),
    ('\u{206e}', show::CYAN),
    ('\u{206f}', show::DIM),
];
/// Where a colour ends.
const END: char = '\u{2064}';

/// What stands on both sides of a cell.
const PADDING: u16 = 2;

/// A table that is being put together.
pub(super) struct Grid {
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
    width: Option<u16>,
}

/// Whether a column's text may be broken: it is from elsewhere.
fn is_text(name: &str) -> bool {
    name.contains('[')
}

fn width_min(name: &str) -> u16 {
    if name == "[NAME]" { NAME_WIDTH_MIN } else { TEXT_WIDTH_MIN }
}

/// Whether a column is left out where there is no room for it.
fn is_spare(name: &str) -> bool {
    name.contains('(')
}

impl Grid {
    /// These columns. The text of those in brackets may be broken; those in parentheses are left out, the widest first, where
    /// a terminal has no room for all.
    pub(super) fn new(head: &'static [&'static str]) -> Self {
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
        Self { head, rows: Vec::new(), width }
    }

    /// One more row; each cell is made tame.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let max = if self.width.is_some() { SHOWN_MAX } else { usize::MAX };
        let cell = |Cell { text, colour }: Cell| {
            let text = crate::deliver::tame(&text, max);
            let mark = COLOURS.iter().find(|(_, known)| *known == colour).map(|(mark, _)| *mark);
            mark.filter(|_| !text.is_empty()).map_or(text.clone(), |mark| format!("{mark}{text}{END}"))
        };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    pub(super) fn print(self, out: &mut impl Write) -> io::Result<()> {
        for line in self.lines() {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    fn lines(self) -> Vec<String> {
        let mut shown: Vec<usize> = (0..self.head.len()).collect();
        let mut table = self.table(&shown);
        if let Some(room) = self.width {
            let widths = table.column_max_content_widths();
            let least = |at: usize| {
                PADDING + if is_text(self.head[at]) { widths[at].min(width_min(self.head[at])) } else { widths[at] }
            };
            while shown.iter().map(|at| least(*at)).sum::<u16>() > room {
                let spare = shown.iter().copied().filter(|at| is_spare(self.head[*at]));
                let Some(widest) = spare.max_by_key(|at| least(*at)) else { break };
                shown.retain(|at| *at != widest);
            }
            table = self.table(&shown);
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(room);
            for (column, at) in table.column_iter_mut().zip(&shown) {
                column.set_constraint(match is_text(self.head[*at]) && widths[*at] > width_min(self.head[*at]) {
                    true => ColumnConstraint::LowerBoundary(Width::Fixed(width_min(self.head[*at]) + PADDING)),
                    false => ColumnConstraint::ContentWidth,
                });
            }
        }
        table.lines().map(|line| coloured(line.trim_end())).collect()
    }

    /// With these columns.
    fn table(&self, shown: &[usize]) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(shown.iter().map(|at| self.head[*at].trim_matches(['[', ']', '(', ')'])));
        for row in &self.rows {
            table.add_row(shown.iter().map(|at| &row[*at]));
        }
        table
    }
}

fn coloured(line: &str) -> String {
    let mut coloured = String::new();
    for c in line.chars() {
        match COLOURS.iter().find(|(mark, _)| *mark == c) {
            Some((_, colour)) => coloured += colour,
            None if c == END => coloured += show::PLAIN,
            None => coloured.push(c),
        }
    }
    coloured
}

/// A cell, and its colour if it has one.
pub(super) struct Cell {
    text: String,
    colour: &'static str,
}

impl Cell {
    pub(super) fn coloured(text: impl ToString, colour: &'static str) -> Self {
        Self { text: text.to_string(), colour }
    }
}

/// A cell without a colour.
pub(super) fn cell(text: impl ToString) -> Cell {
    Cell::coloured(text, "")
}

#[cfg(test)]
mod tests {
    use super::{Cell, Grid, cell};
    use crate::cli::show;

    fn grid(width: Option<u16>) -> Vec<String> {
        let mut grid = Grid { width, ..Grid::new(&["STATUS", "(ID)", "[REASON]"]) };
        grid.row([
            Cell::coloured("Failed", show::RED),
            cell("job-1"),
            cell("no quota\u{1b}[2J is left in this region"),
        ]);
        grid.row([Cell::coloured("Success", show::GREEN), cell("夜"), cell("")]);
        grid.lines()
    }

    #[test]
    fn a_table_is_aligned_whatever_is_coloured_and_nothing_from_elsewhere_colours_it() {
        assert_eq!(
            grid(None),
            [
                " STATUS   ID     REASON",
                " \u{1b}[1;31mFailed\u{1b}[0m   job-1  no quota [2J is left in this region",
                " \u{1b}[32mSuccess\u{1b}[0m  夜",
            ]
        );
    }

    #[test]
    fn on_a_terminal_the_text_is_broken_and_nothing_else_is() {
        let lines = grid(Some(36));
        assert!(
            lines.iter().all(|line| line.replace("\u{1b}[1;31m", "").replace("\u{1b}[0m", "").chars().count() <= 36)
        );
        assert_eq!(lines[1], " \u{1b}[1;31mFailed\u{1b}[0m   job-1  no quota [2J is");
        let rest: Vec<&str> = lines[2..4].iter().map(|line| line.trim()).collect();
        assert_eq!(rest, ["left in this", "region"]);
        // Where that is too narrow, what is least needed goes.
        let narrow = grid(Some(26));
        assert_eq!(narrow[0], " STATUS   REASON");
        assert_eq!(narrow[1], " \u{1b}[1;31mFailed\u{1b}[0m   no quota [2J is");
    }
}
