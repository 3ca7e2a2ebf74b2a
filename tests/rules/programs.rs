//! What every program has.

use crate::{names, none, read, root};

#[test]
fn every_program_has_a_page_and_a_contract_test() {
    let mut complaints = Vec::new();
    for name in names("bins") {
        let page = format!("docs/commands/{name}.md");
        if !root().join(&page).is_file() {
            complaints.push(format!("{name} has no page {page}"));
        }
        let test = root().join(format!("bins/{name}/tests/cli.rs"));
        let has_test = std::fs::read_to_string(test).is_ok_and(|text| text.contains("#[test]"));
        if !has_test {
            complaints.push(format!("{name} has no test in tests/cli.rs"));
        }
    }
    none(complaints);
}

#[test]
fn every_page_of_a_command_has_a_program() {
    let programs = names("bins");
    let mut complaints = Vec::new();
    for page in names("docs/commands") {
        let name = page.strip_suffix(".md").unwrap_or(&page).to_owned();
        if !programs.contains(&name) {
            complaints.push(format!("docs/commands/{page} is of no program"));
            continue;
        }
        let first = read(format!("docs/commands/{page}")).lines().next().unwrap_or("").to_owned();
        if !first.starts_with(&format!("# {name}")) {
            complaints.push(format!("docs/commands/{page} does not begin with '# {name}'"));
        }
    }
    none(complaints);
}

#[test]
fn programs_begin_with_what_they_do() {
    let mut complaints = Vec::new();
    for name in names("bins") {
        let text = read(format!("bins/{name}/src/main.rs"));
        if !text.starts_with("//! ") {
            complaints.push(format!("bins/{name}/src/main.rs does not begin with its purpose"));
        }
        let named = text.contains(&format!("name = \"{name}\""));
        let by_itself = ["banger", "banger-guest-init", "banger-guest-agent"];
        if !named && !by_itself.contains(&name.as_str()) {
            complaints.push(format!("bins/{name}/src/main.rs does not name itself to clap"));
        }
    }
    none(complaints);
}

#[test]
fn the_list_of_programs_is_in_the_pages() {
    let page = read("docs/programs.md");
    let mut complaints = Vec::new();
    for name in names("bins") {
        if !page.contains(&format!("(commands/{name}.md)")) {
            complaints.push(format!("docs/programs.md does not link {name}"));
        }
    }
    none(complaints);
}

/// `banger schema` reads this column: what a program prints is known to programs too.
#[test]
fn the_list_of_programs_says_what_each_prints() {
    let page = read("docs/programs.md");
    let mut complaints = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| [banger")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, prints] = cells.as_slice() else {
            complaints.push(format!("docs/programs.md: not three cells: {line}"));
            continue;
        };
        let name = name.trim_start_matches('[').split(']').next().unwrap_or_default();
        let command = read(format!("docs/commands/{name}.md"));
        let schemas = prints.split('`').filter(|word| word.starts_with("banger."));
        for schema in schemas.filter(|schema| !command.contains(*schema)) {
            complaints.push(format!("docs/commands/{name}.md does not tell of {schema}"));
        }
    }
    none(complaints);
}
