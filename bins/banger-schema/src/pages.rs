//! What the pages say in tables: what a program prints, what a status means.

use banger_doc::ExitStatus;

const PROGRAMS: &str = include_str!("../../../docs/programs.md");

/// Returns the cells of the rows of a page's tables.
pub(crate) fn rows(page: &str) -> impl Iterator<Item = Vec<String>> {
    page.lines().filter_map(|line| {
        let inside = line.strip_prefix('|')?.strip_suffix('|')?;
        // A bar that belongs to a cell is written with a backslash.
        let cells = inside.replace("\\|", "\0");
        Some(cells.split('|').map(|cell| cell.trim().replace('\0', "|")).collect())
    })
}

/// Returns the words of a cell that are set as code.
pub(crate) fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the schemas of the documents a program prints.
pub(crate) fn prints(program: &str) -> Vec<String> {
    let link = format!("(commands/{program}.md)");
    rows(PROGRAMS)
        .filter(|cells| cells.len() == 3 && cells[0].ends_with(&link))
        .flat_map(|cells| code(&cells[2]))
        .filter(|word| word.starts_with("banger."))
        .collect()
}

/// Returns the exit statuses.
pub(crate) fn statuses() -> Vec<ExitStatus> {
    rows(PROGRAMS)
        .filter(|cells| cells.len() == 4)
        .filter_map(|cells| {
            Some(ExitStatus {
                status: cells[0].parse().ok()?,
                kind: code(&cells[1]).pop(),
                meaning: cells[2].clone(),
                remedy: cells[3].clone(),
            })
        })
        .collect()
}
