//! The examples of the pages that need a running VM, and the README's pipeline.

use crate::{fixture, guest::Guest, registry::Registry};
use banger_tests::{Page, Sandbox, pages, program};
use std::time::Duration;

/// Blocks marked `console vm` run against one VM `web`, page after page.
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
    let complaints: Vec<String> = pages.into_iter().flat_map(Page::finish).collect();
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
