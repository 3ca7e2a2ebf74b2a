//! What exports brought out of VMs, kept for when what became of it went wrong.

use crate::{Room, Shelf, State, place};
use banger_doc::{Context, Error, ExportCopy, Kind, Name, Result};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

/// How often a number is chosen anew that another export took meanwhile.
const TRIES: u32 = 100;

impl State {
    /// The copies of exports.
    pub fn exports(&self) -> Shelf<ExportCopy> {
        Shelf::new(self.path(place::EXPORTS), place::EXPORT_DOCUMENT, "export")
    }

    /// Returns the file that holds what was exported.
    pub fn exported(&self, copy: &ExportCopy) -> PathBuf {
        self.exports().folder(&copy.name).join(copy.form.word())
    }

    /// Keeps a copy of an export, synced and whole, and returns it with the name that it got. `content` is
    /// read from its begin and left there.
    pub fn keep_export(&self, mut copy: ExportCopy, mut content: &File) -> Result<ExportCopy> {
        let shelf = self.exports();
        for _ in 0..TRIES {
            copy.name = free_name(&shelf, &copy.vm)?;
            let staged = match shelf.begin(&copy.name) {
                Err(error) if error.kind() == Kind::Conflict => continue,
                other => other?,
            };
            let path = staged.path().join(copy.form.word());
            let mut write = || -> std::io::Result<()> {
                content.seek(SeekFrom::Start(0))?;
                let mut file = File::options().write(true).create_new(true).open(&path)?;
                std::io::copy(&mut content.take(copy.size_bytes), &mut file)?;
                content.seek(SeekFrom::Start(0))?;
                file.sync_all()
            };
            write().with_context(|| format!("cannot write '{}'", path.display()))?;
            match shelf.publish(&copy.name, staged, &copy) {
                Err(error) if error.kind() == Kind::Conflict => {}
                other => return other.map(|()| copy),
            }
        }
        Err(Error::conflict("other exports take every number").hint("try again"))
    }

    /// Returns the copies of exports, the newest first, and why one of them cannot be read.
    pub fn all_exports(&self) -> Result<(Vec<ExportCopy>, Option<Error>)> {
        let shelf = self.exports();
        let (mut copies, mut failure) = (Vec::new(), None);
        for name in shelf.names()? {
            match shelf.get(&name) {
                Ok(copy) => copies.push(ExportCopy { name, ..copy }),
                // Removed since its name was read.
                Err(_) if !shelf.has(&name) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        copies.sort_by_key(|copy| std::cmp::Reverse((copy.unix_ms, number(&copy.name))));
        Ok((copies, failure))
    }

    /// Returns the copies that are not to be kept, with the room that each takes, in bytes: those older than
    /// `age` at `now_ms`, and the oldest where all take more than `bytes`. The newest stays.
    pub fn surplus_exports(
        &self,
        age: Duration,
        bytes: u64,
        now_ms: u64,
    ) -> Result<Vec<(ExportCopy, u64)>> {
        let shelf = self.exports();
        let mut sum = 0u64;
        let mut surplus = Vec::new();
        for (at, copy) in self.all_exports()?.0.into_iter().enumerate() {
            let room = Room::of(&shelf.folder(&copy.name)).allocated;
            let is_old = now_ms.saturating_sub(copy.unix_ms) as u128 > age.as_millis();
            sum = sum.saturating_add(room);
            if at > 0 && (is_old || sum > bytes) {
                surplus.push((copy, room));
            }
        }
        Ok(surplus)
    }

    /// Removes a copy of an export, and returns how many bytes that frees.
    pub fn remove_export(&self, name: &Name) -> Result<u64> {
        let shelf = self.exports();
        let room = Room::of(&shelf.folder(name)).allocated;
        shelf.remove(name, |_| Ok(())).map(|()| room)
    }
}

/// Returns the number that a copy's name ends with.
fn number(name: &Name) -> u64 {
    name.as_str().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Returns the name that the next copy of a VM's work gets: one more than the highest number there is.
fn free_name(shelf: &Shelf<ExportCopy>, vm: &Name) -> Result<Name> {
    // Room for any number.
    let most = Name::MAX - "-18446744073709551615".len();
    let start = vm.as_str().chars().take(most).collect::<String>();
    let start = start.trim_end_matches(['-', '.']);
    let names = shelf.names()?;
    let of_vm = names
        .iter()
        .filter(|name| name.as_str().rsplit_once('-').is_some_and(|(before, _)| before == start));
    let last = of_vm.map(number).max().unwrap_or(0);
    format!("{start}-{}", last.saturating_add(1)).parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::ExportForm;
    use std::io::Write;

    fn copy(vm: &str, unix_ms: u64, size_bytes: u64) -> ExportCopy {
        let vm: Name = vm.parse().unwrap();
        ExportCopy {
            name: vm.clone(),
            vm,
            guest_path: "/root/repo".into(),
            host_path: "/home/me/repo".into(),
            form: ExportForm::Patch,
            base_commit: None,
            size_bytes,
            files: 1,
            unix_ms,
        }
    }

    fn state() -> (tempfile::TempDir, State, File) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("state")).unwrap();
        let mut content = tempfile::tempfile().unwrap();
        content.write_all(&vec![b'x'; 100_000]).unwrap();
        (dir, state, content)
    }

    #[test]
    fn copies_have_the_name_of_their_vm_and_a_number() {
        let (_dir, state, content) = state();
        let long = format!("a{}", "-b".repeat(31));
        let keep = |vm: &str| state.keep_export(copy(vm, 1, 100_000), &content).unwrap();
        let names: Vec<String> = ["web", "web", "web-2", "web", &long, &long]
            .map(|vm| keep(vm).name.to_string())
            .to_vec();
        assert_eq!(names[..4], ["web-1", "web-2", "web-2-1", "web-3"]);
        assert!(names[4].ends_with("-1") && names[5].ends_with("-2"), "{names:?}");
        let kept = state.exports().get(&"web-3".parse().unwrap()).unwrap();
        assert_eq!(std::fs::read(state.exported(&kept)).unwrap(), vec![b'x'; 100_000]);
        // The highest is what counts, so none comes twice while a later one is there.
        state.remove_export(&"web-1".parse().unwrap()).unwrap();
        assert_eq!(keep("web").name.as_str(), "web-4");
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_and_the_newest_stays() {
        let (_dir, state, content) = state();
        for (at, vm) in ["a", "b", "c", "d"].into_iter().enumerate() {
            state.keep_export(copy(vm, at as u64 * 1000, 100_000), &content).unwrap();
        }
        let surplus = |seconds: u64, bytes: u64| {
            let age = Duration::from_secs(seconds);
            let surplus = state.surplus_exports(age, bytes, 10_000).unwrap();
            surplus.iter().map(|(copy, _)| copy.vm.to_string()).collect::<String>()
        };
        assert_eq!(surplus(100, 1 << 30), "");
        assert_eq!(surplus(8, 1 << 30), "ba");
        assert_eq!(surplus(0, 1 << 30), "cba");
        assert_eq!(surplus(100, 0), "cba");
        let one = Room::of(&state.exports().folder(&"a-1".parse().unwrap())).allocated;
        assert_eq!(surplus(100, 2 * one), "ba");
    }
}
