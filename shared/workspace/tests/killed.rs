//! Either side killed in the middle of a prepare or an export: both trees stay valid, and doing it
//! again succeeds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_channel::files::{Files, serve};
use banger_doc::Context;
use banger_workspace::{Export, Offer, Push, Want, prepare};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
};
use world::World;

const SETUP: &str = "git init -q; for i in $(seq 60); do mkdir -p d$((i % 7)); seq $i $((i * 40)) >d$((i % 7))/f$i; done; \
                     git add -A; git commit -qm one";

/// A stream to a guest that dies after so many bytes went to it or came from it, all operations
/// together. Dying is the connection's end in the middle of anything, and no answer ever after.
fn dying(limit: i64) -> Files<'static> {
    let left = Arc::new(AtomicI64::new(limit));
    world::files_by(move || {
        if left.load(Ordering::SeqCst) <= 0 {
            return Err(banger_doc::Error::failed("the guest is gone"));
        }
        let (here, middle) = UnixStream::pair().context("no pair")?;
        let (behind, there) = UnixStream::pair().context("no pair")?;
        let ways = [
            (middle.try_clone().context("")?, behind.try_clone().context("")?),
            (behind.try_clone().context("")?, middle.try_clone().context("")?),
        ];
        thread::spawn(move || serve(there));
        for (mut from, mut to) in ways {
            let left = left.clone();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(size @ 1..) = from.read(&mut buffer) {
                    let size = size as i64;
                    let before = left.fetch_sub(size, Ordering::SeqCst);
                    let pass = size.min(before.max(0));
                    let _ = to.write_all(&buffer[..pass as usize]);
                    if pass < size {
                        break;
                    }
                }
                let _ = from.shutdown(std::net::Shutdown::Both);
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
        Ok(here)
    })
}

/// Numbers that are spread and the same each time.
fn moments(count: u64, most: u64) -> impl Iterator<Item = i64> {
    (0..count).scan(0x9e37_79b9_u64, move |state, _| {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(((*state >> 33) % most) as i64)
    })
}

fn agree(world: &World) {
    let script = "cd $TOP; rm -rf want have; cp -a host want; rm -rf want/.git; cp -a guest/root/repo have; rm -rf have/.git; diff -r want have";
    world.shell(world.path(), script);
    let state = "git rev-parse HEAD; git status --porcelain; git fsck --no-dangling";
    assert_eq!(world.shell(&world.guest(), state), world.shell(&world.host(), state));
    let left = fs::read_dir(world.guest().parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "nothing is left beside the workspace");
}

#[test]
fn a_first_prepare_that_dies_is_repeated() {
    for moment in moments(10, 900_000) {
        let world = World::new(SETUP);
        let died = prepare(&world.vm(), &dying(moment), &world.wish()).is_err();
        if world.guest().exists() {
            world.shell(&world.guest(), "git fsck --no-dangling && git status");
        }
        world.prepare(&world.wish()).unwrap_or_else(|error| {
            panic!("after {moment} bytes (died: {died}): {}", error.chain())
        });
        agree(&world);
    }
}

#[test]
fn a_second_prepare_that_dies_is_repeated() {
    for moment in moments(10, 400_000) {
        let world = World::new(SETUP);
        world.prepare(&world.wish()).unwrap();
        world.shell(
            &world.host(),
            "for i in $(seq 20); do echo more >>d$((i % 7))/f$i; done; rm d3/f3; mkdir n; seq 5000 >n/n; git add -A; git commit -qm two; echo e >>n/n",
        );
        let _ = prepare(&world.vm(), &dying(moment), &world.wish());
        world.shell(&world.guest(), "git fsck --no-dangling && git status");
        world
            .prepare(&world.wish())
            .unwrap_or_else(|error| panic!("after {moment} bytes: {}", error.chain()));
        agree(&world);
        assert_eq!(world.unexported(), [""; 0]);
    }
}

#[test]
fn an_export_that_dies_is_repeated() {
    let world = World::new(SETUP);
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.guest(), "for i in $(seq 30); do echo more >>d$((i % 7))/f$i; done; seq 9000 >new; git add -A; git commit -qm w");
    let expected = world.export();
    for moment in moments(10, 120_000) {
        let _ = Export::make(&world.vm(), &dying(moment), &Want::default());
        world.shell(
            &world.guest(),
            "git fsck --no-dangling && test -z \"$(git status --porcelain)\"",
        );
        assert_eq!(world.export(), expected, "after {moment} bytes");
    }
}

#[test]
fn work_that_follows_a_prepare_that_died_is_still_work() {
    let world = World::new(SETUP);
    world.prepare(&world.wish()).unwrap();
    world.shell(&world.host(), "echo more >>d1/f1; git commit -qam two");
    let _ = prepare(&world.vm(), &dying(9000), &world.wish());
    world.shell(&world.guest(), "sleep 0.02; echo mine >>d2/f2");
    let error = world.prepare(&world.wish()).unwrap_err();
    assert!(error.chain().contains("d2/f2"), "{}", error.chain());
    world.shell(&world.guest(), "git checkout -q d2/f2; git commit -q --allow-empty -m mine");
    let error = world.prepare(&world.wish()).unwrap_err();
    assert!(error.chain().contains("main"), "{}", error.chain());
}

#[test]
fn a_pull_that_dies_is_repeated() {
    let world = World::new(SETUP);
    world.prepare(&world.wish()).unwrap();
    world.shell(
        &world.guest(),
        "for n in $(seq 8); do for i in $(seq 20); do echo $n >>d$((i % 7))/f$i; done; git commit -qam $n; done; \
         git switch -qc other; seq 9000 >new; git add new; git commit -qm w; echo open >>new",
    );
    let expected = "git rev-parse main other";
    let expected = world.shell(&world.guest(), expected);
    let mut is_out = false;
    for moment in moments(12, 300_000) {
        is_out |= world.pull_by(&dying(moment)).is_ok();
        world.shell(&world.host(), "git fsck --strict --no-dangling; test ! -e .git/config.lock");
        assert_eq!(world.unexported().is_empty(), is_out, "after {moment} bytes");
    }
    world.pull().unwrap();
    assert_eq!(world.shell(&world.host(), "git rev-parse web/main web/other"), expected);
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_push_that_dies_is_repeated() {
    let push = |world: &World, files: &Files<'_>| {
        let mut offer = Offer::make(&world.vm(), files)?;
        let wanted = [Push::parse("main:topic").unwrap()];
        offer.push(files, &world.host(), &[], &wanted, false)
    };
    for moment in moments(12, 200_000) {
        let world = World::new(SETUP);
        world.prepare(&world.wish()).unwrap();
        world.shell(&world.host(), "seq 9000 >new; git add new; git commit -qm new");
        let _ = push(&world, &dying(moment));
        world.shell(&world.guest(), "git fsck --strict --no-dangling; git status");
        let done = push(&world, &world.files()).unwrap();
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        let of =
            |dir, name| world.shell(dir, &format!("git rev-parse {name}; git fsck --no-dangling"));
        assert_eq!(of(&world.guest(), "topic"), of(&world.host(), "main"));
        assert_eq!(world.unexported(), [""; 0]);
    }
}

#[test]
fn a_push_to_what_is_checked_out_that_dies_is_told_and_repeated() {
    let push = |world: &World, files: &Files<'_>| {
        let mut offer = Offer::make(&world.vm(), files)?;
        let wanted = [Push::parse("main").unwrap()];
        offer.push(files, &world.host(), &[], &wanted, false)
    };
    let (mut is_torn, mut is_whole) = (false, false);
    for (n, moment) in moments(12, 250_000).enumerate() {
        let world = World::new(SETUP);
        world.prepare(&world.wish()).unwrap();
        world.shell(
            &world.host(),
            "for i in $(seq 30); do echo more >>d$((i % 7))/f$i; done; git rm -q d3/f31; git mv d4/f32 g; seq 9000 >new; \
             git add -A; git commit -qm new",
        );
        let died = push(&world, &dying(moment)).is_err();
        world.shell(&world.guest(), "git fsck --strict --no-dangling; git status");
        let status = banger_workspace::status(&world.vm(), &world.files(), true, &[]).unwrap();
        let told = status.notes.iter().any(|note| note.contains("did not end"));
        is_torn |= told;
        is_whole |= !died;
        assert!(died || !told, "after {moment} bytes: {:?}", status.notes);
        assert_eq!(world.unexported(), [""; 0], "after {moment} bytes: all of it is the host's");
        // A prepare ends it too.
        if n % 3 == 0 {
            world.prepare(&world.wish()).unwrap();
        } else {
            let done = push(&world, &world.files()).unwrap();
            assert!(done.iter().all(Result::is_ok), "after {moment} bytes: {done:?}");
        }
        agree(&world);
        assert_eq!(world.unexported(), [""; 0], "after {moment} bytes");
    }
    assert!(
        is_torn && is_whole,
        "some died in the middle ({is_torn}), some not at all ({is_whole})"
    );
}
