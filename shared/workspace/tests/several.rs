//! Several workspaces in one VM: each at its own place, none at the cost of another.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

mod world;

use banger_doc::{Error, Kind, Name, Result, Workspace};
use banger_state::{State, VmFolder, place};
use banger_workspace::{
    Export, Place, Want, Wish, bring_to_its_place, choose, folder, folder_at, folder_of, folders,
    is_gone, prepare, records, user_of,
};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Barrier,
    thread,
};
use world::World;

const ONE: &str = "git init -q; echo a >a; git add a; git commit -qm one";

/// A VM in a state directory, a guest that is a directory, repositories beside them.
struct Several {
    world: World,
    vm: VmFolder,
}

impl Several {
    fn new(repositories: &[&str]) -> Self {
        let world = World::new("");
        for name in repositories {
            fs::create_dir_all(world.path().join(name)).unwrap();
            world.shell(
                &world.path().join(name),
                &format!("{ONE}; echo {name} >name; git add name; git commit -qm two"),
            );
        }
        let state = State::at(world.path().join("state")).unwrap();
        fs::create_dir_all(state.path("vms/web")).unwrap();
        fs::write(state.path("vms/web/vm.json"), "{}").unwrap();
        fs::create_dir_all(world.path().join("guest/root")).unwrap();
        let vm = state.vm(&"web".parse::<Name>().unwrap()).unwrap();
        Self { world, vm }
    }

    fn host(&self, name: &str) -> PathBuf {
        self.world.path().join(name)
    }

    fn guest(&self, below: &str) -> String {
        self.world.path().join("guest/root").join(below).to_str().unwrap().to_owned()
    }

    fn home(&self) -> String {
        self.guest("").trim_end_matches('/').to_owned()
    }

    fn wish(&self, name: &str, at: &Place, is_named: bool) -> Wish {
        let (guest_path, user) = (at.guest_path.clone(), at.user.clone());
        Wish { path: self.host(name), guest_path, user, is_named, ..self.world.wish() }
    }

    /// Prepares it where it goes by itself.
    fn prepare(&self, name: &str) -> Result<Workspace> {
        let bring = |at: &Place| {
            let dir = folder_at(&self.vm, &at.guest_path);
            prepare(&dir, &self.world.files(), &self.wish(name, at, false))
        };
        let is_gone = |path: &str| is_gone(&self.world.files(), path);
        bring_to_its_place(&self.vm, &self.host(name), None, || Ok(self.home()), is_gone, bring)
    }

    /// Prepares it where somebody says.
    fn prepare_at(&self, name: &str, below: &str, force: bool) -> Result<Workspace> {
        let guest_path = self.guest(below).trim_end_matches('/').to_owned();
        let at = Place { guest_path, user: None };
        let wish = Wish { force, ..self.wish(name, &at, true) };
        prepare(&folder_at(&self.vm, &at.guest_path), &self.world.files(), &wish)
    }

    /// Returns what lies in the folder of the VM's workspaces.
    fn left(&self) -> usize {
        fs::read_dir(self.vm.join(place::VM_WORKSPACES)).map_or(0, Iterator::count)
    }

    fn places(&self) -> Vec<String> {
        let home = self.guest("");
        let all = records(&self.vm).unwrap();
        all.iter().map(|(_, one)| one.guest_path.replace(&home, "~/")).collect()
    }
}

fn is(error: &Error, kind: Kind, part: &str) {
    assert_eq!(error.kind(), kind, "{}", error.chain());
    assert!(error.chain().contains(part), "{}", error.chain());
}

#[test]
fn another_repository_goes_beside_the_first() {
    let all = Several::new(&["api", "web", "deep/api", ".dots"]);
    assert_eq!(folder(&all.vm, None).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(all.prepare("api").unwrap().guest_path, all.guest("repo"));
    assert_eq!(folder(&all.vm, None).unwrap(), folder_at(&all.vm, &all.guest("repo")));
    fs::write(all.guest("repo/a"), "work\n").unwrap();
    assert_eq!(all.prepare("web").unwrap().guest_path, all.guest("web"));
    assert_eq!(all.prepare("deep/api").unwrap().guest_path, all.guest("api"));
    assert_eq!(all.prepare(".dots").unwrap().guest_path, all.guest("dots"));
    assert_eq!(all.places(), ["~/repo", "~/web", "~/api", "~/dots"], "the first is the first");
    // Each is found again, by any directory in it; work of another is in nobody's way.
    fs::create_dir(all.host("web/below")).unwrap();
    fs::write(all.host("web/a"), "news\n").unwrap();
    let again = all.prepare("web/below").unwrap();
    assert_eq!(again.guest_path, all.guest("web"));
    assert_eq!(fs::read_to_string(all.guest("web/a")).unwrap(), "news\n");
    is(&all.prepare("api").unwrap_err(), Kind::Conflict, "1 changed file (a)");
    assert_eq!(fs::read_to_string(all.guest("repo/a")).unwrap(), "work\n");
    assert_eq!(all.places(), ["~/repo", "~/web", "~/api", "~/dots"]);

    // Who does not say which is asked, and told which there are.
    let error = folder(&all.vm, None).unwrap_err();
    is(&error, Kind::Usage, "VM 'web' has 4 workspaces: '");
    is(&error, Kind::Usage, &format!("'{}'", all.guest("dots")));
    assert!(error.hint_text().unwrap().contains("--guest-path"));
    let named = folder(&all.vm, Some(&all.guest("web/"))).unwrap();
    assert_eq!(named, folder_at(&all.vm, &all.guest("web")));
    is(
        &folder(&all.vm, Some("/nowhere")).unwrap_err(),
        Kind::NotFound,
        "no workspace in '/nowhere'",
    );
    assert_eq!(folders(&all.vm).unwrap().len(), 4);
    let of = |at: Option<&str>, name: &str| folder_of(&all.vm, at, Some(&all.host(name)));
    assert_eq!(of(None, "web").unwrap(), named, "what it was prepared from says which");
    assert_eq!(of(Some(&all.guest("web")), "api").unwrap(), named);
    is(&of(None, "deep").unwrap_err(), Kind::Usage, "has 4 workspaces");
    std::env::set_current_dir(all.host("web/below")).unwrap();
    assert_eq!(folder(&all.vm, None).unwrap(), named, "where it is called from says which");
    std::env::set_current_dir(all.host("deep")).unwrap();
    is(&folder(&all.vm, None).unwrap_err(), Kind::Usage, "has 4 workspaces");

    // What comes out of one is of that one.
    fs::write(all.guest("api/a"), "other work\n").unwrap();
    for (below, line) in [("repo", "+work"), ("api", "+other work"), ("web", "")] {
        let dir = folder_at(&all.vm, &all.guest(below));
        let mut export = Export::make(&dir, &all.world.files(), &Want::default()).unwrap();
        let mut patch = String::new();
        export.patch.read_to_string(&mut patch).unwrap();
        let added: Vec<&str> =
            patch.lines().filter(|line| line.ends_with("work") && line.starts_with('+')).collect();
        assert_eq!(added.concat(), line, "{below}: {patch}");
    }
}

#[test]
fn what_is_the_same_is_told_by_its_path_on_the_host_whatever_it_is() {
    let all = Several::new(&["api"]);
    all.prepare("api").unwrap();
    let make = "git worktree add -q -b side ../tree; mkdir ../plain; echo x >../plain/x; \
                git clone -q . ../clone; git init -q --separate-git-dir ../own.git ../apart; \
                git -C ../apart commit -q --allow-empty -m one";
    all.world.shell(&all.host("api"), make);
    for name in ["tree", "plain", "clone"] {
        for _ in 0..2 {
            assert_eq!(all.prepare(name).unwrap().guest_path, all.guest(name));
        }
    }
    assert_eq!(all.places(), ["~/repo", "~/tree", "~/plain", "~/clone"]);
    // What cannot go makes none.
    is(&all.prepare("apart").unwrap_err(), Kind::Usage, "leads out of the repository");
    is(&all.prepare("nowhere").unwrap_err(), Kind::NotFound, "nowhere");
    assert_eq!(all.left(), 4);
}

#[test]
fn none_lies_in_another_and_none_displaces_another_unasked() {
    let all = Several::new(&["api", "web"]);
    all.prepare_at("api", "repo", false).unwrap();
    for below in ["repo/inner", "repo/a", ""] {
        let error = all.prepare_at("web", below, true).unwrap_err();
        is(&error, Kind::Conflict, "would lie one in the other");
        assert_eq!(all.left(), 1, "nothing stays of what was refused");
    }
    // A name that only begins alike is another place.
    all.prepare_at("web", "repo-2", false).unwrap();
    // The same place, when nobody named it: somebody was quicker.
    let at = Place { guest_path: all.guest("repo"), user: None };
    let dir = folder_at(&all.vm, &at.guest_path);
    let error = prepare(&dir, &all.world.files(), &all.wish("web", &at, false)).unwrap_err();
    is(&error, Kind::Conflict, "meanwhile");
    assert_eq!(fs::read_to_string(all.guest("repo/name")).unwrap(), "api\n");
    // Named, it is moved aside, and said; work that nobody exported is in the way.
    fs::write(all.guest("repo/a"), "work\n").unwrap();
    is(&all.prepare_at("web", "repo", false).unwrap_err(), Kind::Conflict, "work of its own");
    let notes = all.prepare_at("web", "repo", true).unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("moved aside")), "{notes:?}");
    assert_eq!(fs::read_to_string(all.guest("repo.before-1/a")).unwrap(), "work\n");
    // Twice there, it does not say by itself which is meant.
    is(&all.prepare("web").unwrap_err(), Kind::Usage, "has 2 workspaces in VM 'web'");
}

#[test]
fn whose_it_is_stays() {
    let all = Several::new(&["api", "web"]);
    let choose = |name: &str, user: Option<&str>, home: &str| {
        choose(&all.vm, &all.host(name), user, || Ok(all.guest(home)), |_| false).unwrap()
    };
    let at = choose("api", Some("dev"), "dev");
    assert_eq!((at.guest_path.clone(), at.user.as_deref()), (all.guest("dev/repo"), Some("dev")));
    let dir = folder_at(&all.vm, &at.guest_path);
    prepare(&dir, &all.world.files(), &all.wish("api", &at, false)).unwrap();
    assert_eq!(user_of(&all.vm, &at.guest_path).as_deref(), Some("dev"));
    // Whoever does not say whose means the one that is there; another user has one of its own.
    assert_eq!(choose("api", None, "root"), at);
    assert_eq!(choose("api", Some("ann"), "ann").guest_path, all.guest("ann/repo"));
    assert_eq!(choose("web", None, "root").guest_path, all.guest("root/repo"));
    assert_eq!(choose("web", Some("dev"), "dev").guest_path, all.guest("dev/web"));
}

#[test]
fn two_that_come_at_once_both_have_a_place() {
    let names = ["api", "web", "deep/api", "deep/web"];
    let all = Several::new(&names);
    let start = Barrier::new(names.len());
    let places: Vec<String> = thread::scope(|scope| {
        let one = |name| {
            let (all, start) = (&all, &start);
            scope.spawn(move || {
                start.wait();
                all.prepare(name).unwrap().guest_path
            })
        };
        let threads: Vec<_> = names.into_iter().map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (name, place) in names.into_iter().zip(&places) {
        let held = fs::read_to_string(Path::new(place).join("name")).unwrap();
        assert_eq!(held.trim(), name, "{place}");
    }
    assert!(places.contains(&all.guest("repo")), "{places:?}");
    assert_eq!((all.left(), folders(&all.vm).unwrap().len()), (4, 4), "{places:?}");
    let before = fs::read_dir(all.home()).unwrap().flatten();
    assert_eq!(before.filter(|one| one.path().to_str().unwrap().contains("before")).count(), 0);
}

#[test]
fn what_is_gone_from_the_guest_is_forgotten_when_another_comes() {
    let all = Several::new(&["api", "web", "more"]);
    all.prepare("api").unwrap();
    all.prepare("web").unwrap();
    fs::remove_dir_all(all.guest("repo")).unwrap();
    // A program that works on it keeps it.
    let dir = folder_at(&all.vm, &all.guest("repo"));
    let lock = banger_state::Lock::try_exclusive(&dir).unwrap().unwrap();
    all.prepare("more").unwrap();
    assert_eq!(all.places(), ["~/repo", "~/web", "~/more"]);
    drop(lock);
    // Its own repository puts it there again.
    assert_eq!(all.prepare("api").unwrap().guest_path, all.guest("repo"));
    fs::remove_dir_all(all.guest("repo")).unwrap();
    fs::remove_dir_all(all.guest("more")).unwrap();
    let notes = all.prepare_at("api", "elsewhere", false).unwrap().notes;
    assert_eq!(notes.iter().filter(|note| note.contains("and forgotten")).count(), 2, "{notes:?}");
    assert_eq!((all.places(), all.left()), (vec!["~/web".into(), "~/elsewhere".into()], 2));
}

#[test]
fn a_place_that_is_gone_from_the_guest_is_the_next_ones() {
    let all = Several::new(&["api", "web", "more"]);
    all.prepare("api").unwrap();
    all.prepare("more").unwrap();
    fs::write(all.guest("repo/a"), "work\n").unwrap();
    fs::remove_dir_all(all.guest("repo")).unwrap();
    fs::remove_dir_all(all.guest("more")).unwrap();
    // A look changes nothing.
    let at = choose(
        &all.vm,
        &all.host("web"),
        None,
        || Ok(all.home()),
        |path| is_gone(&all.world.files(), path),
    );
    assert_eq!(at.unwrap().guest_path, all.guest("repo"));
    assert_eq!(all.places(), ["~/repo", "~/more"]);
    let made = all.prepare("web").unwrap();
    assert_eq!(made.guest_path, all.guest("repo"));
    assert_eq!(made.notes.iter().filter(|note| note.contains("and forgotten")).count(), 2);
    assert_eq!((all.places(), all.left()), (vec!["~/repo".to_owned()], 1));
    assert_eq!(fs::read_to_string(all.guest("repo/name")).unwrap(), "web\n");
    assert_eq!(all.prepare("api").unwrap().guest_path, all.guest("api"));
}

#[test]
fn there_is_an_end_to_how_many_there_are() {
    let all = Several::new(&["api", "web"]);
    all.prepare("api").unwrap();
    let record = fs::read_to_string(folder(&all.vm, None).unwrap().join("workspace.json")).unwrap();
    for number in 1..64 {
        let at = all.guest(&format!("more/{number}"));
        fs::create_dir_all(&at).unwrap();
        let folder = folder_at(&all.vm, &at);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("workspace.json"), record.replace(&all.guest("repo"), &at)).unwrap();
    }
    is(&all.prepare("web").unwrap_err(), Kind::Conflict, "64 workspaces already");
    assert_eq!(all.left(), 64);
    fs::remove_dir(all.guest("more/7")).unwrap();
    all.prepare("web").unwrap();
    assert_eq!(all.left(), 64);
}

#[test]
fn a_record_that_cannot_be_read_is_said_and_left() {
    let all = Several::new(&["api", "web"]);
    all.prepare("api").unwrap();
    let document = folder(&all.vm, None).unwrap().join("workspace.json");
    fs::write(&document, "damaged").unwrap();
    is(&all.prepare("web").unwrap_err(), Kind::Failed, "workspace.json");
    assert_eq!(fs::read_to_string(&document).unwrap(), "damaged");
    assert_eq!(all.left(), 1);
}
