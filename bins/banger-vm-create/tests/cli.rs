//! The contract of `banger-vm-create`.

use banger_tests::Sandbox;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::atomic::{AtomicBool, Ordering},
};

const CREATE: &str = env!("CARGO_BIN_EXE_banger-vm-create");

fn ready() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    sandbox
}

fn create(sandbox: &Sandbox, more: &[&str]) -> banger_tests::Answer {
    sandbox.run(CREATE, &[&["--image", "alpine", "--no-start"], more].concat())
}

#[test]
fn a_vm_is_two_documents_and_two_sparse_disks() {
    let sandbox = ready();
    let answer = create(
        &sandbox,
        &[
            "--name",
            "web",
            "--memory",
            "512M",
            "--vcpu",
            "2",
            "--disk-size",
            "20G",
            "--net",
            "none",
        ],
    );
    let view = answer.document();
    assert_eq!(view["schema"], "banger.view/1");
    assert_eq!(view["status"], "created");
    assert_eq!(view["name"], "web");
    assert_eq!(view["spec"]["memory_mib"], 512);
    assert_eq!(view["spec"]["vcpu"], 2);
    assert_eq!(view["spec"]["disk_bytes"], 20_u64 << 30);
    assert_eq!(view["spec"]["net"], "none");
    assert_eq!(view["id"].as_str().unwrap().len(), 32);
    let folder = sandbox.vm("web");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for (disk, size) in [("overlay.ext4", 8_u64 << 30), ("work.ext4", 20 << 30)] {
        let path = folder.join(disk);
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), size, "{disk}");
        assert!(meta.blocks() * 512 < 16 << 20, "{disk} is not sparse: {} blocks", meta.blocks());
        sandbox.raw("/usr/sbin/e2fsck", &["-fn", path.to_str().unwrap()]).ok();
    }
    let left: Vec<_> = fs::read_dir(sandbox.state().join("vms"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    assert_eq!(left, ["web"]);
}

#[test]
fn a_name_is_made_up_and_no_two_vms_share_anything() {
    let sandbox = ready();
    let one = create(&sandbox, &[]).document().clone();
    let two = create(&sandbox, &[]).document().clone();
    for key in ["name", "id", "mac"] {
        assert_ne!(one[key], two[key], "{key}");
    }
    let name = one["name"].as_str().unwrap();
    assert!(
        name.split('-').count() == 2 && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    );
}

#[test]
fn one_of_sixteen_creates_of_a_name_wins() {
    let sandbox = ready();
    let statuses: Vec<i32> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..16).map(|_| scope.spawn(|| create(&sandbox, &["--name", "web"]).status)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|s| **s == 0).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 4).count(), 15, "{statuses:?}");
    let litter = fs::read_dir(sandbox.state().join("vms")).unwrap().count();
    assert_eq!(litter, 2, "the VM and the lock of the shelf");
}

#[test]
fn a_vm_that_another_program_takes_at_once_was_created_all_the_same() {
    let sandbox = ready();
    let (seen, over) = (sandbox.vm("web"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // As a delete does it: out of sight whole.
            for number in 0.. {
                while fs::rename(&seen, sandbox.dir().join(format!("taken-{number}"))).is_err() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        });
        let answers: Vec<_> = (0..20).map(|_| create(&sandbox, &["--name", "web"])).collect();
        over.store(true, Ordering::Relaxed);
        assert!(answers.iter().any(|answer| answer.status == 0));
        for answer in &answers {
            match answer.status {
                0 => assert_eq!(answer.document()["status"], "created"),
                // The one before was still there.
                _ => {
                    answer.fails(4, "VM 'web' exists");
                }
            }
        }
    });
}

#[test]
fn a_user_without_a_name_has_vms_without_keys() {
    let sandbox = ready();
    // A number that /etc/passwd has no line for, which ssh-keygen refuses.
    let words = ["--user", "--map-user=1234567", CREATE, "--image", "alpine", "--no-start"];
    let answer = sandbox.raw("unshare", &[&words[..], &["--name", "web"]].concat());
    assert_eq!(answer.status, 0, "{}", answer.all());
    assert!(sandbox.vm("web").join("work.ext4").exists());
    assert!(!sandbox.vm("web").join("ssh/host_ed25519").exists());
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let sandbox = ready();
    for (words, part) in [
        (&["--name", "Web"][..], "'Web' is not a name"),
        (&["--name", "../x"], "is not a name"),
        (&["--name", "a.b"], "not a name for a VM"),
        (&["--name", "web", "--vcpu", "0"], "0 processors"),
        (&["--name", "web", "--vcpu", "33"], "33 processors"),
        (&["--name", "web", "--memory", "-1G"], "not a size"),
        (&["--name", "web", "--memory", "0"], "'--memory' takes 64M to "),
        (&["--name", "web", "--memory", "512K"], "524288 bytes of memory"),
        (&["--name", "web", "--memory", "1M"], "1 MiB of memory"),
        (&["--name", "web", "--memory", "900T"], "MiB of memory"),
        (&["--name", "web", "--disk-size", "0G"], "zero"),
        (&["--name", "web", "--disk-size", "1000T"], "a disk cannot have"),
        (&["--name", "web", "--overlay-size", "many"], "not a size"),
        (&["--name", "web", "--net", "wifi"], "'wifi' is none of"),
        (&["--name", "web", "--vmm", "xen"], "'xen' is none of"),
        (&["--name", "web", "--init", "systemd"], "'systemd' is none of"),
        (&["--nmae", "web"], "--nmae"),
        (&["web"], "web"),
    ] {
        create(&sandbox, words).fails(2, part);
    }
    assert!(!sandbox.vm("web").exists());
}

#[test]
fn what_runs_first_is_kept_where_it_was_said() {
    let sandbox = ready();
    let spec = |words: &[&str]| create(&sandbox, words).document()["spec"].clone();
    assert_eq!(spec(&["--init", "minimal"])["init"], "minimal");
    assert_eq!(spec(&["--init", "image"])["init"], "image");
    assert_eq!(spec(&["--init", "auto"]).get("init"), None);
    assert_eq!(spec(&[]).get("init"), None);
}

#[test]
fn an_existing_name_is_a_conflict() {
    let sandbox = ready();
    create(&sandbox, &["--name", "web"]).ok();
    let before = fs::read(sandbox.vm("web").join("vm.json")).unwrap();
    create(&sandbox, &["--name", "web"]).fails(4, "VM 'web' exists");
    assert_eq!(fs::read(sandbox.vm("web").join("vm.json")).unwrap(), before);
}

#[test]
fn the_configuration_fills_in_what_is_not_said() {
    let sandbox = ready();
    sandbox
        .config("default_image = 'alpine'\nnet = 'none'\n[vm_defaults]\nvcpu = 3\ndisk = '1G'\n");
    let view = sandbox.run(CREATE, &["--no-start"]).document().clone();
    assert_eq!(view["image"], "alpine");
    assert_eq!(view["spec"]["vcpu"], 3);
    assert_eq!(view["spec"]["disk_bytes"], 1 << 30);
    assert_eq!(view["spec"]["net"], "none");
    assert_eq!(create(&sandbox, &["--vcpu", "1"]).document()["spec"]["vcpu"], 1);
}

#[test]
fn a_kernel_of_another_processor_is_refused() {
    let sandbox = ready();
    let path = sandbox.state().join("kernels/generic-6.12/kernel.json");
    let mut kernel: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    kernel["architecture"] = "arm64".into();
    fs::write(&path, kernel.to_string()).unwrap();
    create(&sandbox, &["--name", "web"]).fails(1, "is for amd64");
    assert!(!sandbox.vm("web").exists());
}

#[test]
fn a_missing_image_is_pulled_and_its_failure_passed_on() {
    let sandbox = Sandbox::new();
    sandbox.plant_kernel("generic-6.12");
    let error =
        r#"{"schema":"banger.error/1","kind":"not-found","message":"no such tag","hint":"look"}"#;
    let program =
        sandbox.beside(CREATE, &[("banger-image-pull", &format!("echo '{error}'; exit 3"))]);
    let answer = sandbox.run(&program, &["--image", "alpine:9", "--no-start"]);
    answer.fails(3, "no such tag");
    assert!(answer.stderr.contains("cannot get the image 'alpine:9'"), "{answer:?}");

    let document = sandbox.plant_image("alpine");
    fs::rename(sandbox.state().join("images/alpine"), sandbox.dir().join("alpine")).unwrap();
    let pull = format!(
        "[ \"$*\" = '-- alpine:3' ] || exit 9; mv {0}/alpine {1}/images/; echo '{document}'",
        sandbox.dir().display(),
        sandbox.state().display(),
    );
    let program = sandbox.beside(CREATE, &[("banger-image-pull", &pull)]);
    let answer = sandbox.run(&program, &["--image", "alpine:3", "--no-start"]);
    assert_eq!(answer.document()["image"], "alpine");
}

#[test]
fn stdin_is_no_image_and_what_takes_it_in_is_said() {
    let sandbox = ready();
    let program = sandbox.beside(CREATE, &[("banger-image-pull", "exit 9")]);
    for (image, kind) in [
        ("docker-archive:-", "docker-archive"),
        ("docker-archive:-:app:1", "docker-archive"),
        ("oci-archive:-", "oci-archive"),
        ("oci:-", "oci-archive"),
        ("-", "docker-archive"),
    ] {
        let answer = sandbox.feed(&program, &["--no-start", "--image", image], b"tar");
        answer.fails(2, &format!("'{image}' is stdin, which is not read for an image"));
        let hint = format!("'banger image pull {kind}:- --name NAME' takes it in");
        assert!(answer.stderr.contains(&hint), "{answer:?}");
    }
}

#[test]
fn a_path_is_no_image_and_what_takes_it_in_is_said() {
    let sandbox = ready();
    let program = sandbox.beside(CREATE, &[("banger-image-pull", "exit 9")]);
    let refused = |image: &str, hint: &str| {
        let answer = sandbox.run(&program, &["--image", image, "--no-start"]);
        answer.fails(2, &format!("'{image}' is a path, not the name of an image"));
        assert!(answer.stderr.contains(hint), "{answer:?}");
    };
    let file = "'banger image import PATH'";
    fs::create_dir_all(sandbox.dir().join("plain")).unwrap();
    refused("./plain", "'tar -C ./plain -c . | banger image import - --name NAME'");
    fs::write(sandbox.dir().join("plain/oci-layout"), "").unwrap();
    refused("./plain", "'banger image pull oci:./plain'");
    fs::write(sandbox.dir().join("saved.tar"), "").unwrap();
    refused("saved.tar", file);
    refused("/nowhere.tar", file);
    refused("~/saved.tar", file);
    // What may be a name is one, whatever lies here.
    sandbox.plant_image("plain");
    sandbox.run(&program, &["--image", "plain", "--no-start"]).ok();
}

#[test]
fn starting_is_another_program_whose_answer_is_passed_on() {
    let sandbox = ready();
    let error =
        r#"{"schema":"banger.error/1","kind":"failed","message":"VM 'web' did not come up"}"#;
    let start = format!("[ \"$*\" = '--timeout 7 web' ] || exit 9; echo '{error}'; exit 1");
    let program = sandbox.beside(CREATE, &[("banger-vm-start", &start)]);
    sandbox
        .run(&program, &["--image", "alpine", "--name", "web", "--timeout", "7"])
        .fails(1, "did not come up");
    assert!(sandbox.vm("web").join("vm.json").exists(), "it is kept");

    // What this host cannot run is of no use.
    let error = error.replace("failed", "unavailable");
    let deleted = sandbox.dir().join("deleted");
    let programs = [
        ("banger-vm-start", &*format!("echo '{error}'; exit 5")),
        ("banger-vm-delete", &*format!("echo $* > {}", deleted.display())),
    ];
    let program = sandbox.beside(CREATE, &programs);
    sandbox.run(&program, &["--image", "alpine", "--name", "two"]).fails(5, "did not come up");
    assert_eq!(fs::read_to_string(deleted).unwrap(), "--quiet two\n");
}
