//! Keeps what has to be unique over several VMs: loopback addresses and published ports of the host.
//!
//! All of it lies in `leases.db`, an SQLite database. A lease is written down before what it names
//! is made, and belongs to a VM by its id. One whose VM is gone is worth nothing: whoever wants
//! the same takes it over, and [`Leases::release_orphans`] removes the rest.

use banger_doc::{Context, Error, HostPorts, Name, Publish, Result};
use banger_state::{Lock, State, place};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// How long to wait for another program's transaction, each of which takes milliseconds.
const BUSY: Duration = Duration::from_secs(10);
/// How many loopback addresses are tried.
const ATTEMPTS: u32 = 4096;

/// Changes of the database, in order; `user_version` counts those that are done. One that was
/// released is never edited.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE loopback (
        address TEXT PRIMARY KEY,
        vm TEXT NOT NULL,
        id TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE port (
        address TEXT NOT NULL,
        port INTEGER NOT NULL,
        vm TEXT NOT NULL,
        id TEXT NOT NULL,
        PRIMARY KEY (address, port)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX port_number ON port (port);
    CREATE INDEX port_id ON port (id);
"];

/// The open database.
#[derive(Debug)]
pub struct Leases<'a> {
    state: &'a State,
    db: Connection,
}

/// A lease, as somebody is told of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The VM it was given to.
    pub vm: Name,
    /// What it is of: `127.x.y.z`, or `ADDRESS:PORT`.
    pub what: String,
}

impl<'a> Leases<'a> {
    /// Opens the database to change it, making and migrating it where that is needed.
    pub fn open(state: &'a State) -> Result<Self> {
        let path = state.path(place::LEASES);
        let open = || -> rusqlite::Result<Connection> {
            let mut db = Connection::open_with_flags(
                &path,
                OpenFlags::SQLITE_OPEN_READ_WRITE
                    | OpenFlags::SQLITE_OPEN_CREATE
                    | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            db.busy_timeout(BUSY)?;
            db.pragma_update(None, "journal_mode", "TRUNCATE")?;
            migrate(&mut db, MIGRATIONS)?;
            Ok(db)
        };
        let db = open()
            .with_context(|| format!("cannot open '{}'", path.display()))
            .map_err(|error| error.hint("without VMs running, the file may be removed"))?;
        let newest = MIGRATIONS.len() as i64;
        if version(&db).context("cannot read 'leases.db'")? > newest {
            return Err(Error::unavailable(format!(
                "'{}' was made by a newer banger",
                path.display()
            ))
            .hint("use the newer banger that wrote it"));
        }
        Ok(Self { state, db })
    }

    /// Opens the database without changing anything; `None` where there is none.
    pub fn open_read_only(state: &'a State) -> Result<Option<Self>> {
        let path = state.path(place::LEASES);
        if !path.exists() {
            return Ok(None);
        }
        let open = || -> rusqlite::Result<Connection> {
            let db = Connection::open_with_flags(
                &path,
                OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?;
            db.busy_timeout(BUSY)?;
            Ok(db)
        };
        let db = open().with_context(|| format!("cannot open '{}'", path.display()))?;
        Ok(Some(Self { state, db }))
    }

    /// Gives a VM just what `wanted` asks for, instead of what it had, and returns that with the
    /// address it got. Asking for the same again changes nothing.
    ///
    /// What another VM has is a conflict, and changes nothing.
    pub fn take(&mut self, vm: &Name, id: &str, wanted: &HostPorts) -> Result<HostPorts> {
        wanted.check()?;
        let state = self.state;
        let transaction = begin(&mut self.db)?;
        let ports = take_ports(&transaction, state, vm, id, &wanted.publish)?;
        let loopback = if wanted.auto {
            Some(take_loopback(&transaction, state, vm, id)?)
        } else {
            transaction
                .execute("DELETE FROM loopback WHERE id = ?1", [id])
                .context("cannot write to 'leases.db'")?;
            None
        };
        transaction.commit().context("cannot write to 'leases.db'")?;
        Ok(HostPorts { publish: ports, auto: wanted.auto, loopback })
    }

    /// Takes back all that a VM has.
    pub fn release(&mut self, id: &str) -> Result<()> {
        let transaction = begin(&mut self.db)?;
        delete(&transaction, id).context("cannot write to 'leases.db'")?;
        transaction.commit().context("cannot write to 'leases.db'")
    }

    /// Takes back what was given to VMs that are gone and to none that is being made, and returns
    /// it; with `dry_run` only returns it.
    pub fn release_orphans(&mut self, dry_run: bool) -> Result<Vec<Lease>> {
        let state = self.state;
        let transaction = begin(&mut self.db)?;
        let mut orphans = Vec::new();
        for (vm, id, what) in all(&transaction).context("cannot read 'leases.db'")? {
            if !owner_lives(state, &vm, &id)? {
                if !dry_run {
                    delete(&transaction, &id).context("cannot write to 'leases.db'")?;
                }
                // A name that is none was never given by banger.
                orphans.extend(vm.parse().ok().map(|vm| Lease { vm, what }));
            }
        }
        transaction.commit().context("cannot write to 'leases.db'")?;
        Ok(orphans)
    }

    /// Returns every lease.
    pub fn list(&self) -> Result<Vec<Lease>> {
        let rows = all(&self.db).context("cannot read 'leases.db'")?;
        Ok(rows
            .into_iter()
            .filter_map(|(vm, _, what)| Some(Lease { vm: vm.parse().ok()?, what }))
            .collect())
    }
}

/// Takes back all that a VM has, where there is anything: for a program that deletes it.
pub fn release(state: &State, id: &str) -> Result<()> {
    if state.path(place::LEASES).exists() { Leases::open(state)?.release(id) } else { Ok(()) }
}

/// Takes back what was given to VMs that are gone: for a program that tidies up.
pub fn release_orphans(state: &State, dry_run: bool) -> Result<Vec<Lease>> {
    if state.path(place::LEASES).exists() {
        Leases::open(state)?.release_orphans(dry_run)
    } else {
        Ok(Vec::new())
    }
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Makes the changes that are not done, in order, each in a transaction with its number: one that
/// fails, or whose program is killed, is not done, and those before it are.
fn migrate(db: &mut Connection, changes: &[&str]) -> rusqlite::Result<()> {
    while version(db)? < changes.len() as i64 {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another program may have been first.
        let done = usize::try_from(version(&transaction)?).unwrap_or(changes.len());
        if let Some(change) = changes.get(done) {
            transaction.execute_batch(change)?;
            transaction.pragma_update(None, "user_version", done as i64 + 1)?;
        }
        transaction.commit()?;
    }
    Ok(())
}

fn begin(db: &mut Connection) -> Result<Transaction<'_>> {
    db.transaction_with_behavior(TransactionBehavior::Immediate)
        .context("cannot begin to change 'leases.db'")
}

fn delete(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM loopback WHERE id = ?1", [id])?;
    db.execute("DELETE FROM port WHERE id = ?1", [id])?;
    Ok(())
}

/// Returns the VM, its id and what it has, for each lease.
fn all(db: &Connection) -> rusqlite::Result<Vec<(String, String, String)>> {
    let mut rows = db
        .prepare("SELECT vm, id, address FROM loopback ORDER BY vm")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let ports = db
        .prepare("SELECT vm, id, address, port FROM port ORDER BY vm, port")?
        .query_map([], |row| {
            let (address, port): (String, u16) = (row.get(2)?, row.get(3)?);
            Ok((row.get(0)?, row.get(1)?, place_of(&address, port)))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    rows.extend(ports);
    Ok(rows)
}

fn place_of(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Says whether the VM that has a lease is there, or is being made at this moment.
fn owner_lives(state: &State, vm: &str, id: &str) -> Result<bool> {
    // Looked for first: what is published meanwhile is found below.
    for entry in fs::read_dir(state.path(place::VMS)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let staged = name.to_str().and_then(|n| n.strip_prefix(".new-")?.rsplit_once('-'));
        if staged.is_some_and(|(name, _)| name == vm) && Lock::is_held(&entry.path())? {
            return Ok(true);
        }
    }
    let Ok(name) = vm.parse::<Name>() else { return Ok(false) };
    let vms = state.vms();
    if !vms.has(&name) {
        return Ok(false);
    }
    match vms.get(&name) {
        Ok(record) => Ok(record.id == id),
        // Deleted at this moment, or its record cannot be read: then it keeps what it has.
        Err(_) => Ok(vms.has(&name)),
    }
}

fn take_ports(
    db: &Connection,
    state: &State,
    vm: &Name,
    id: &str,
    publish: &[Publish],
) -> Result<Vec<Publish>> {
    let broken = "cannot write to 'leases.db'";
    db.execute("DELETE FROM port WHERE id = ?1", [id]).context(broken)?;
    for wanted in publish {
        let holders = db
            .prepare("SELECT address, vm, id FROM port WHERE port = ?1")
            .and_then(|mut query| {
                query
                    .query_map([wanted.host_port], |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                    })?
                    .collect::<rusqlite::Result<Vec<(String, String, String)>>>()
            })
            .context("cannot read 'leases.db'")?;
        for (address, holder, holder_id) in holders {
            let theirs = Publish { address: address.parse().ok(), ..wanted.clone() };
            if holder_id == id || !theirs.meets(wanted) {
                continue;
            }
            if owner_lives(state, &holder, &holder_id)? {
                let place = place_of(&address, wanted.host_port);
                return Err(Error::conflict(format!(
                    "port {} of this host is VM '{holder}'s: it publishes {place}",
                    wanted.host_port
                ))
                .hint(format!(
                    "publish another port, or 'banger vm set {holder} --unpublish {}' first",
                    wanted.host_port
                )));
            }
            delete(db, &holder_id).context(broken)?;
        }
        for address in wanted.addresses() {
            db.execute(
                "INSERT INTO port (address, port, vm, id) VALUES (?1, ?2, ?3, ?4)",
                params![address.to_string(), wanted.host_port, vm.as_str(), id],
            )
            .context(broken)?;
        }
    }
    Ok(publish.to_vec())
}

/// Returns the address the VM has, or gives it one that no other has.
fn take_loopback(db: &Connection, state: &State, vm: &Name, id: &str) -> Result<IpAddr> {
    let broken = "cannot write to 'leases.db'";
    let one = |query: &str, value: &str| -> Result<Option<(String, String, String)>> {
        let mut query = db.prepare(query).context("cannot read 'leases.db'")?;
        let mut rows = query
            .query_map([value], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .context("cannot read 'leases.db'")?;
        rows.next().transpose().context("cannot read 'leases.db'")
    };
    if let Some((address, _, _)) = one("SELECT address, vm, id FROM loopback WHERE id = ?1", id)?
        && let Ok(address) = address.parse()
    {
        return Ok(address);
    }
    for attempt in 0..ATTEMPTS {
        let address = candidate(id, attempt).to_string();
        match one("SELECT address, vm, id FROM loopback WHERE address = ?1", &address)? {
            Some((_, holder, holder_id)) if owner_lives(state, &holder, &holder_id)? => continue,
            Some((_, _, holder_id)) => delete(db, &holder_id).context(broken)?,
            None => {}
        }
        db.execute(
            "INSERT INTO loopback (address, vm, id) VALUES (?1, ?2, ?3)",
            params![address, vm.as_str(), id],
        )
        .context(broken)?;
        return address.parse().context("cannot make a loopback address");
    }
    Err(Error::conflict("no loopback address is free")
        .hint("'banger gc' takes back those of VMs that are gone"))
}

/// An address below `127.64.0.0/10`, by the VM's id: other states choose for themselves, and rarely
/// the same. Nobody else is there: `127.0.0.0/16` has name servers and host names.
fn candidate(id: &str, attempt: u32) -> Ipv4Addr {
    let start = u32::from_str_radix(id.get(..8).unwrap_or("0"), 16).unwrap_or(0);
    let number = start.wrapping_add(attempt.wrapping_mul(2_654_435_761));
    let [a, b, c, _] = number.to_be_bytes();
    Ipv4Addr::new(127, 64 + a % 64, b, 1 + c % 254)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::Vm;
    use std::collections::HashSet;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("state")).unwrap();
        (dir, state)
    }

    fn id(number: u32) -> String {
        format!("{number:032x}")
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn make(state: &State, vm: &str, id: &str) {
        let staged = state.vms().begin(&name(vm)).unwrap();
        let record = Vm {
            name: name(vm),
            id: id.to_owned(),
            image: name("i"),
            kernel: name("k"),
            mac: String::new(),
            created_unix_s: 0,
        };
        state.vms().publish(&name(vm), staged, &record).unwrap();
    }

    fn ports(publish: &[&str], auto: bool) -> HostPorts {
        let publish = publish.iter().map(|text| text.parse().unwrap()).collect();
        HostPorts { publish, auto, loopback: None }
    }

    #[test]
    fn a_vm_keeps_its_address_until_it_goes() {
        let (_dir, state) = state();
        make(&state, "web", &id(1));
        let mut leases = Leases::open(&state).unwrap();
        let first = leases.take(&name("web"), &id(1), &ports(&[], true)).unwrap();
        let address = first.loopback.unwrap();
        assert!(address.is_loopback() && address.to_string().starts_with("127."));
        let again = leases.take(&name("web"), &id(1), &ports(&["8080:80"], true)).unwrap();
        assert_eq!(again.loopback, Some(address));
        assert_eq!(leases.list().unwrap().len(), 3);
        leases.take(&name("web"), &id(1), &ports(&[], false)).unwrap();
        assert!(leases.list().unwrap().is_empty());
    }

    #[test]
    fn a_port_is_one_vms_until_that_is_gone() {
        let (_dir, state) = state();
        make(&state, "web", &id(1));
        make(&state, "db", &id(2));
        let mut leases = Leases::open(&state).unwrap();
        leases.take(&name("web"), &id(1), &ports(&["8080:80"], false)).unwrap();
        for taken in ["8080:1", "0.0.0.0:8080:1", "[::1]:8080:1"] {
            let error =
                leases.take(&name("db"), &id(2), &ports(&["9:9", taken], false)).unwrap_err();
            assert_eq!(error.kind(), banger_doc::Kind::Conflict);
            assert!(error.chain().contains("VM 'web's"), "{}", error.chain());
        }
        // A refusal gives nothing.
        assert_eq!(leases.list().unwrap().len(), 2);
        leases.take(&name("db"), &id(2), &ports(&["127.0.0.9:8080:1"], false)).unwrap();
        state.vms().remove(&name("web"), |_| Ok(())).unwrap();
        leases.take(&name("db"), &id(2), &ports(&["8080:1"], false)).unwrap();
        // A new VM of the old name has nothing of it.
        make(&state, "web", &id(3));
        assert!(leases.take(&name("web"), &id(3), &ports(&["8080:1"], false)).is_err());
    }

    #[test]
    fn orphans_are_found_but_not_what_is_being_made() {
        let (_dir, state) = state();
        make(&state, "gone", &id(1));
        let staged = state.vms().begin(&name("new-one")).unwrap();
        let mut leases = Leases::open(&state).unwrap();
        for (vm, number) in [("gone", 1), ("new-one", 2)] {
            let port = format!("{number}:1");
            leases.take(&name(vm), &id(number), &ports(&[&port], true)).unwrap();
        }
        assert!(leases.release_orphans(false).unwrap().is_empty());
        state.vms().remove(&name("gone"), |_| Ok(())).unwrap();
        assert_eq!(leases.release_orphans(true).unwrap().len(), 3);
        assert_eq!(leases.release_orphans(false).unwrap().len(), 3);
        assert_eq!(leases.list().unwrap().len(), 3);
        drop(staged);
        assert_eq!(release_orphans(&state, false).unwrap().len(), 3);
        assert!(leases.list().unwrap().is_empty());
    }

    #[test]
    fn addresses_differ_although_ids_begin_alike() {
        let (_dir, state) = state();
        let mut leases = Leases::open(&state).unwrap();
        let mut seen = HashSet::new();
        for number in 0..100 {
            let vm = format!("vm-{number}");
            let id = format!("00000000{number:024x}");
            make(&state, &vm, &id);
            let got = leases.take(&name(&vm), &id, &ports(&[], true)).unwrap();
            assert!(seen.insert(got.loopback.unwrap()));
        }
    }

    #[test]
    fn reading_makes_no_file_and_two_writers_take_turns() {
        let (_dir, state) = state();
        assert!(Leases::open_read_only(&state).unwrap().is_none());
        release(&state, &id(1)).unwrap();
        assert!(!state.path(place::LEASES).exists());
        for number in 0..8 {
            make(&state, &format!("vm-{number}"), &id(number));
        }
        let won: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let state = &state;
                    scope.spawn(move || {
                        let vm = name(&format!("vm-{number}"));
                        let mut leases = Leases::open(state).unwrap();
                        leases.take(&vm, &id(number), &ports(&["8080:80"], true)).is_ok()
                    })
                })
                .collect();
            threads.into_iter().map(|t| usize::from(t.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
        let before = fs::read_dir(state.root()).unwrap().count();
        let reader = Leases::open_read_only(&state).unwrap().unwrap();
        assert_eq!(reader.list().unwrap().len(), 3);
        assert_eq!(fs::read_dir(state.root()).unwrap().count(), before);
    }

    #[test]
    fn a_change_that_fails_is_not_done_and_those_before_it_are() {
        let (_dir, state) = state();
        let mut db = Connection::open(state.path(place::LEASES)).unwrap();
        let broken = ["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"];
        assert!(migrate(&mut db, &broken).is_err());
        let tables = |db: &Connection| -> Vec<String> {
            let mut query = db.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
            let names = query.query_map([], |row| row.get(0)).unwrap();
            names.map(|name| name.unwrap()).collect()
        };
        assert_eq!((version(&db).unwrap(), tables(&db)), (1, vec!["a".to_owned()]));
        // A newer banger knows better, and more.
        let mended = [broken[0], "CREATE TABLE b (x)", "CREATE TABLE c (x)"];
        let path = state.path(place::LEASES);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut db = Connection::open(&path).unwrap();
                    db.busy_timeout(BUSY).unwrap();
                    migrate(&mut db, &mended).unwrap();
                });
            }
        });
        let all = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!((version(&db).unwrap(), tables(&db)), (3, all));
    }

    #[test]
    fn a_newer_or_broken_database_is_refused() {
        let (_dir, state) = state();
        Leases::open(&state).unwrap().db.pragma_update(None, "user_version", 99).unwrap();
        let error = Leases::open(&state).unwrap_err();
        assert_eq!(error.kind(), banger_doc::Kind::Unavailable);
        fs::write(state.path(place::LEASES), "no database at all, but long enough").unwrap();
        assert!(Leases::open(&state).unwrap_err().chain().contains("leases.db"));
    }
}
