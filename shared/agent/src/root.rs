//! The image's root, which is not there yet when the agent begins: it answers before the boot has a disk.

use banger_doc::{Context, Error, Result};
use nix::unistd::{chdir, chroot};
use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// The root of the process that boots the guest. Its directory is entered, so it leads into that root whatever
/// this process has for its own.
const OF_THE_BOOT: &str = "/proc/1/root";

/// The way to the boot that goes on beside the agent, and whether that has made the root.
#[derive(Debug)]
pub(crate) struct Root {
    boot: UnixStream,
    is_entered: Mutex<bool>,
    entered: Condvar,
}

impl Root {
    pub(crate) fn new(boot: UnixStream) -> Self {
        Self { boot, is_entered: Mutex::new(false), entered: Condvar::new() }
    }

    /// Tells the boot that the host has its first answer.
    pub(crate) fn greeted(&self) {
        // Once the root is entered, nobody listens.
        let _ = (&self.boot).write_all(&[0]);
    }

    /// Enters the root as soon as the boot says that it is there. Without one, whoever keeps the agent running
    /// starts another.
    pub(crate) fn enter(&self) -> Result<()> {
        enter_root(&self.boot)?;
        *self.is_entered.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.entered.notify_all();
        Ok(())
    }

    /// Waits until the root is entered, for whoever needs something of the image's.
    pub(crate) fn wait(&self, limit: Duration) -> Result<()> {
        let is_entered = self.is_entered.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.entered.wait_timeout_while(is_entered, limit, |is_entered| !*is_entered);
        let (is_entered, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *is_entered {
            return Ok(());
        }
        let s = limit.as_secs();
        Err(Error::unavailable(format!("the guest has no root file system yet, after {s} s")))
    }
}

/// Waits for the boot's word that the image's root is there, and makes it this process's. All threads of a
/// process have one root.
pub fn enter_root(boot: &UnixStream) -> Result<()> {
    let mut boot = boot;
    boot.read_exact(&mut [0]).context("the boot went no further")?;
    chdir(OF_THE_BOOT)
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .context("cannot enter the image's root")?;
    // The boot goes on when the other end closes.
    let _ = boot.shutdown(Shutdown::Both);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_the_root_waits_for_the_boots_word_and_not_for_ever() {
        let (mut boot, agent) = UnixStream::pair().unwrap();
        let root = Root::new(agent);
        root.greeted();
        boot.read_exact(&mut [1]).unwrap();
        let error = root.wait(Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("no root file system yet"), "{error}");
        // A boot that ends has no root to enter.
        drop(boot);
        assert!(root.enter().is_err());
        assert!(root.wait(Duration::ZERO).is_err());
    }
}
