//! The examples of the pages that need a running VM, and the README's pipeline.

use crate::{
    fixture,
    guest::Guest,
    oci::{Pack, layout},
    registry::Registry,
    tape::{Entry, archive},
};
use banger_tests::{How, Page, Sandbox, Script, have, pages, program};
use serde_json::json;
use std::{collections::BTreeSet, fs, time::Duration};

/// What an image of the test has in place of larger ones.
const STAND_INS: &[(&str, &str)] = &[
    ("bin/make", "#!/bin/sh\necho made $* in $PWD\n"),
    ("bin/python3", "#!/bin/sh\necho serves >/tmp/index.html; exec httpd -f -p 8000 -h /tmp\n"),
];
/// What a page cannot know, and what it is in the test.
const HERE: &[(&str, &str)] = &[("/abs/path", "$PWD"), (" one:", " web:"), (" two:", " web:")];
/// What lies in the folder where the lines are typed; it is a repository itself.
const FOLDER: &str = r#"
git config --global user.name Ada; git config --global user.email ada@example.org
git config --global init.defaultBranch main
for dir in repo other-repo .; do
  mkdir -p "$dir"; git -C "$dir" init -q; echo "in $dir" >"$dir/file"
  git -C "$dir" add file; git -C "$dir" commit -q -m first
done
"#;

/// A person at the prompt: a shell that a line opens is, without a terminal, a command that ends at once
/// (`first_day` opens one); what is not ready a moment after it was sent behind the prompt is tried again.
const PERSON: &str = r#"
curl() { command curl -sf --max-time 10 --retry 20 --retry-delay 1 --retry-all-errors "$@"; }
banger() {
  case " $* " in
  *" -- "* | *" --detach "*) command banger "$@";;
  " vm run "*)
    command banger "$@" -- true;;
  *) command banger "$@";;
  esac
}
trap 'for job in $(jobs -p); do pkill -P "$job" || :; kill "$job" || :; done 2>/dev/null' EXIT
"#;

/// Runs lines as a script of bash, in which the programs are found.
fn script(sandbox: &Sandbox, lines: &str) -> banger_tests::Answer {
    let beside = sandbox.programs().display().to_string();
    let lines = format!("{PERSON}{lines}\n");
    sandbox.raw_with("/bin/bash", &["-euo", "pipefail", "-c", &lines], |command| {
        command.env("PATH", format!("{beside}:{}", banger_tests::SYSTEM_PATH));
    })
}

/// Runs the blocks that are to be run in one way; returns what failed, and how many ran.
fn run(sandbox: &Sandbox, how: &How, after: &str) -> (Vec<String>, usize) {
    let scripts: Vec<Script> = pages().iter().flat_map(|path| Page::open(path).scripts()).collect();
    let (mut complaints, mut ran, mut known) = (Vec::new(), 0, BTreeSet::new());
    for one in scripts.into_iter().filter(|one| one.how.as_ref() == Some(how)) {
        let typed = one.lines.iter().map(|line| line.split(" # ").next().unwrap_or(line).trim());
        // A VM that goes with its command leaves nothing that a second one would find.
        let fresh =
            typed.filter(|line| !line.contains("vm run --rm") || known.insert((*line).to_owned()));
        let mut lines = fresh.collect::<Vec<_>>().join("\n");
        for (there, here) in HERE {
            lines = lines.replace(there, here);
        }
        let answer = script(sandbox, &lines);
        if answer.status != 0 {
            complaints.push(format!("{}:\n{lines}\n{}", one.place, answer.all()));
        }
        script(sandbox, after).ok();
        ran += 1;
    }
    (complaints, ran)
}

/// Blocks for a shell that make their own VMs, of images that stand in for larger ones.
#[test]
fn blocks_for_a_shell_work_as_they_stand() {
    if !["git", "jq", "curl", "skopeo"].into_iter().all(have) {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    let dir = sandbox.dir();
    let base = fixture::busybox_layer(&dir);
    let tools: Vec<Entry> =
        STAND_INS.iter().map(|(path, text)| Entry::file(path, 0o755, *text)).collect();
    let layer = dir.join("tools.tar");
    fs::write(&layer, archive(&tools)).expect("a layer");
    let image = dir.join("layout");
    let config = json!({ "Env": ["PATH=/bin:/sbin"], "Cmd": ["sh"] });
    layout(&image, &[(base, Pack::None), (layer, Pack::None)], &config);
    let kept = dir.join("kept");
    fs::create_dir(&kept).expect("a folder");
    let registry = Registry::serving(&kept);
    fixture::push(&image, &registry.address, "library/alpine:3.20");
    let (at, name) = (&registry.address, "docker.io");
    sandbox.config(&format!(
        "insecure_registries = ['{at}']\n[[mirrors]]\nregistry = '{name}'\nmirror = '{at}'\n"
    ));
    let images = "for name in debian-bookworm debian-bookworm-dev; do
          banger image pull oci:layout --name $name >/dev/null; done
        cp $BANGER_STATE/images/debian-bookworm/rootfs.ext4 .; cp $BANGER_STATE/kernels/*/vmlinux .";
    script(&sandbox, &format!("{FOLDER}{images}")).ok();
    let after = "banger vm list | jq -r .name | xargs -r banger vm delete --force --lose-work";
    let (complaints, ran) = run(&sandbox, &How::Alone, after);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    assert!(ran > 8, "{ran} blocks");
}

/// Blocks marked `console vm` and `runs: in web` run against one VM `web`, page after page.
#[test]
fn pages_with_a_vm_show_what_programs_print() {
    let mut pages: Vec<Page> =
        pages().iter().map(|path| Page::open(path)).filter(|page| page.has("console vm")).collect();
    if pages.is_empty() {
        return;
    }
    let guest = Guest::boot("busybox:1", &["sh", "-c"]);
    for page in &mut pages {
        page.run(&guest.sandbox, "console vm");
    }
    let mut complaints: Vec<String> = pages.into_iter().flat_map(Page::finish).collect();
    guest.says("mkdir -p /var/log /srv/data /root/src");
    script(&guest.sandbox, FOLDER).ok();
    let (failed, ran) = run(&guest.sandbox, &How::InWeb, ":");
    assert!(ran > 2, "{ran} blocks");
    complaints.extend(failed);
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// From a registry to a command in a VM, with nothing but a shell, jq and xargs between.
#[test]
fn programs_make_a_pipeline_in_a_plain_shell() {
    let sandbox = Sandbox::new();
    sandbox.set_limit(Duration::from_mins(5));
    fixture::kernel(&sandbox);
    let registry = Registry::start();
    let beside = program("banger");
    let beside = beside.parent().expect("a folder").display().to_string();
    let shell = |script: &str| {
        sandbox.raw_with("/bin/bash", &["-euo", "pipefail", "-c", script], |command| {
            command.env("PATH", format!("{beside}:{}", banger_tests::SYSTEM_PATH));
            command.env("REGISTRY", &registry.address);
        })
    };
    shell(
        "banger-image-pull $REGISTRY/busybox:1 | jq -r .name \
         | xargs -I{} banger-vm-create --image {} --name web | jq -r .name | grep -x web",
    )
    .ok();
    assert_eq!(shell("banger-vm-exec web -- cat /root/from-the-image").ok().text(), "image root\n");
    // The same words through the front.
    shell(
        "banger image pull $REGISTRY/busybox:1 | jq -r .name \
         | xargs -I{} banger vm create --no-start --image {} --name other",
    )
    .ok();
    let names = "banger ps | jq -r '[.name, .status] | join(\" \")' | sort";
    assert_eq!(shell(names).ok().text(), "other created\nweb running\n");
    // All of it in one command, and nothing left of it.
    let image = shell("banger image list | jq -r .name").ok().text();
    let run = format!(
        "echo in | banger vm run --rm --image {} -- sh -c 'cat; uname -s; exit 3'",
        image.trim()
    );
    let ran = shell(&run);
    assert_eq!((ran.status, ran.text()), (3, "in\nLinux\n".to_owned()), "{}", ran.all());
    shell("banger vm delete --force --lose-work web other").ok();
    assert_eq!(shell("banger vm list").ok().text(), "");
}
