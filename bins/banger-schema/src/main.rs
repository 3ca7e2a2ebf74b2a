//! Says of banger itself what a program that calls it needs: programs with their arguments,
//! documents, exit statuses. Asks the programs beside it; the rest is in the pages it is built
//! with. Reads no state, writes nothing.

mod pages;
mod programs;
mod types;

use banger_cli::Out;
use banger_doc::{Described, Error, ExitStatus, Program, Result};
use std::process::ExitCode;

/// Describe programs, documents and statuses, for programs
///
/// Without a name all of them: first the programs, then the documents, then the statuses.
#[derive(clap::Parser)]
#[command(name = "banger-schema", version)]
struct Args {
    /// A program, such as vm-create, or a document, such as banger.view/1
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    if args.names.is_empty() {
        for program in programs::beside(out)? {
            out.put(&program, program_words)?;
        }
        types::documents().iter().try_for_each(|it| out.put(it, document_words))?;
        return pages::statuses().iter().try_for_each(|it| out.put(it, status_words));
    }
    for name in &args.names {
        if let Some(document) = types::documents().into_iter().find(|it| it.name == *name) {
            out.put(&document, document_words)?;
        } else if let Some(program) = programs::one(name) {
            out.put(&program?, program_words)?;
        } else {
            return Err(Error::not_found(format!(
                "no program and no document '{}'",
                name.escape_debug()
            ))
            .hint("'banger schema' lists all of them"));
        }
    }
    Ok(())
}

fn program_words(program: &Program) -> String {
    format!("{:30}  {}", program.command, program.purpose)
}

fn document_words(document: &Described) -> String {
    format!("{:30}  {}", document.name, document.meaning)
}

fn status_words(status: &ExitStatus) -> String {
    let kind = status.kind.as_deref().unwrap_or("done");
    format!("{:30}  {}", format!("status {} ({kind})", status.status), status.meaning)
}
