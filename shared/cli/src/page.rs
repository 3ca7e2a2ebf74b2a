//! A page about one thing: labels on the left, what they stand for aligned on the right.

use crate::out::{broken, terminal_columns};
use banger_doc::visible;

/// The least room for labels, so that pages look alike.
const LEAST: usize = 12;
/// The longest value, in columns.
const MOST: usize = 4000;
/// A terminal narrower than this has no room for two columns.
const NARROW: usize = 40;

/// The rows of a page, from the top.
#[derive(Clone, Debug, Default)]
pub struct Page {
    rows: Vec<(&'static str, String)>,
}

impl Page {
    /// Adds a row, unless there is nothing to say. A label that repeats is shown once.
    pub fn row(&mut self, label: &'static str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.rows.push((label, value));
        }
    }

    /// Returns the page as the terminal on stdout has room for it, without a line end. Values may be
    /// anybody's words: none acts on the terminal.
    pub fn words(&self) -> String {
        self.fitted(terminal_columns().unwrap_or(usize::MAX))
    }

    fn fitted(&self, columns: usize) -> String {
        let widest = self.rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        let indent = LEAST.max(widest + 2);
        let mut lines = Vec::new();
        let mut last = "";
        for (label, value) in &self.rows {
            let shown = if *label == last { "" } else { label };
            last = label;
            let line = format!("{shown:indent$}{}", visible(value, MOST));
            // What begins a line is not broken from what it stands before.
            let columns = if columns < NARROW { usize::MAX } else { columns };
            lines.push(broken(&line, indent, columns));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_below_each_other_however_long() {
        let mut page = Page::default();
        page.row("name", "web");
        page.row("on this host", "127.68.72.75");
        page.row("port", "127.0.0.1:8080 leads to 80");
        page.row("port", "127.0.0.1:8443 leads to 443, not there: another program has it");
        page.row("kernel", "");
        page.row("note", "a\x1b[2Jb");
        assert_eq!(
            page.fitted(48),
            "name          web\n\
             on this host  127.68.72.75\n\
             port          127.0.0.1:8080 leads to 80\n\
             \x20             127.0.0.1:8443 leads to 443, not\n\
             \x20             there: another program has it\n\
             note          a\\u{1b}[2Jb"
        );
        assert!(page.fitted(20).contains("there: another program has it"));
    }
}
