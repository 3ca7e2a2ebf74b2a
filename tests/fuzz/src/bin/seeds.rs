//! Writes the inputs that fuzzing starts from: `seeds DIR` makes `DIR/TARGET/NUMBER`.

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let dir = std::env::args_os().nth(1).expect("a folder");
    for (target, inputs) in banger_fuzz::seeds::all() {
        let dir = Path::new(&dir).join(target);
        fs::create_dir_all(&dir)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(dir.join(format!("seed-{number}")), input)?;
        }
    }
    Ok(())
}
