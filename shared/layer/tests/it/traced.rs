//! Whatever a layer says, nothing on the host but the disk is created, opened or changed.
//!
//! All tests of this file's neighbours are run once more under strace(1). Each build stands between
//! two marks; between them no system call may take a path, and none may write to anything but the
//! disk.

use crate::support::{TRACED, is_traced};
use std::fs;
use std::process::Command;

/// Tests that make hundreds of thousands of system calls, or whose inputs are others each time.
const SKIPPED: [&str; 5] =
    ["traced", "random", "memory", "seventy_thousand", "two_builds_are_the_same"];
/// What the C library's allocator reads: processors in each new thread, and once, whenever a thread
/// first has much to give back, how that is done.
const ALLOCATOR: [&str; 2] = ["/sys/devices/system/cpu/online", "/proc/sys/vm/overcommit_memory"];
/// Fewer builds than this mean that something kept them from being traced.
const LEAST: usize = 300;

#[test]
fn no_build_touches_anything_but_its_disk() {
    if is_traced() {
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "strace is needed");
        println!("skipped: strace is needed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut command = Command::new("timeout");
    // -y says which file a descriptor is; of what is written nothing is shown.
    command.args(["250", "strace", "-f", "--seccomp-bpf", "-qq", "-y", "-s", "0"]);
    let calls = "trace=%file,%network,write,writev,pwrite64,pwritev,pwritev2,sendfile,splice,\
                 copy_file_range,ftruncate,fallocate,fchmod,fchown,fsetxattr";
    command.args(["-e", calls]);
    command.arg("-o").arg(&log).arg(std::env::current_exe().unwrap());
    command.args(["--test-threads=1", "--quiet"]);
    for test in SKIPPED {
        command.args(["--skip", test]);
    }
    let output = command.env(TRACED, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    let log = fs::read_to_string(log).unwrap();
    let (mut within, mut builds, mut writes) = (false, 0, 0);
    let mut touched = Vec::new();
    for line in log.lines() {
        if line.contains("\"/banger-begin\"") {
            within = true;
            builds += 1;
        } else if line.contains("\"/banger-end\"") {
            within = false;
        } else if within && !line.contains("resumed>") {
            // PID, then the call: pwrite64(5</tmp/.tmpabc/disk>, ""..., 4096, 0) = 4096
            let call = line.split_once(char::is_whitespace).map_or("", |(_, call)| call.trim());
            let to_the_disk = call
                .split_once('<')
                .and_then(|(name, rest)| Some((name, rest.split_once('>')?.0)))
                .is_some_and(|(name, path)| !name.contains('"') && path.ends_with("/disk"));
            if to_the_disk {
                writes += 1;
            } else if !ALLOCATOR.iter().any(|path| call.contains(&format!("\"{path}\", O_RDONLY")))
            {
                touched.push(line);
            }
        }
    }
    touched.truncate(20);
    assert!(touched.is_empty(), "{touched:#?}");
    assert!(
        builds >= LEAST && writes > builds,
        "only {builds} builds and {writes} writes were seen"
    );
}
