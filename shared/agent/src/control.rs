//! Short questions and orders, JSON lines.

use crate::{account, boot, ports, stats};
use banger_channel::{
    PROTOCOL,
    control::{Done, Hello, Ports, REQUEST_BYTES, Request},
    read_line, write_line,
};
use banger_doc::{Context, Error, Result};
use banger_guest::{place, power};
use nix::{
    sys::{signal, time::TimeSpec},
    time::{ClockId, clock_gettime, clock_settime},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::net::UnixStream,
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How long a client may keep silent before its connection is closed.
const SILENCE: Duration = Duration::from_hours(1);
/// No shutdown is given more time than this.
const MOST_GRACE: Duration = Duration::from_hours(1);

/// Answers one connection. `user` is the guest's own; `root` waits for the image's root, which all need but who asks
/// whether somebody is there, or sets the clock.
pub(crate) fn serve(
    mut stream: UnixStream,
    real: bool,
    user: &str,
    root: &dyn Fn() -> Result<()>,
) -> Result<()> {
    while let Some(line) = read_line(&mut stream, REQUEST_BYTES, Instant::now() + SILENCE)
        .context("cannot read a request")?
    {
        if matches!(serde_json::from_slice(&line), Ok(Request::WatchPorts)) {
            root()?;
            return ports::watch(&mut stream);
        }
        let answer = answer(&line, real, user, root)
            .unwrap_or_else(|error| json!({"error": error.chain().replace('\n', " ")}));
        write_line(&mut stream, &answer, Instant::now() + SILENCE).context("cannot answer")?;
    }
    Ok(())
}

fn answer(line: &[u8], real: bool, user: &str, root: &dyn Fn() -> Result<()>) -> Result<Value> {
    let request = serde_json::from_slice(line).context("not a request")?;
    if !real && matches!(request, Request::SetTime { .. } | Request::Shutdown { .. }) {
        return Err(Error::unavailable("this agent does not own its machine"));
    }
    // The time that is told is over once the root is there.
    if !matches!(request, Request::Hello | Request::SetTime { .. }) {
        root()?;
    }
    let value = match request {
        Request::Hello => serde_json::to_value(hello()?),
        Request::Ports | Request::WatchPorts => {
            serde_json::to_value(Ports { ports: ports::listening() })
        }
        Request::Boot { wait_ms } => {
            serde_json::to_value(boot::wait(Duration::from_millis(wait_ms), real))
        }
        Request::Account { user: asked } => {
            serde_json::to_value(account::of(asked.as_deref(), user)?)
        }
        Request::Stats => serde_json::to_value(stats::now()?),
        Request::Sync => {
            nix::unistd::sync();
            serde_json::to_value(Done {})
        }
        Request::SetTime { unix_ms } => {
            let time = TimeSpec::from_duration(Duration::from_millis(unix_ms));
            clock_settime(ClockId::CLOCK_REALTIME, time).context("cannot set the clock")?;
            serde_json::to_value(Done {})
        }
        Request::Shutdown { grace_ms } => {
            shutdown(Duration::from_millis(grace_ms).min(MOST_GRACE))?;
            serde_json::to_value(Done {})
        }
    };
    value.context("cannot write an answer")
}

fn hello() -> Result<Hello> {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).context("cannot read the clock")?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(Hello {
        protocol: PROTOCOL,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: boot_id.trim().to_owned(),
        init: init_kind(),
        uptime_ms: Duration::from(uptime).as_millis() as u64,
    })
}

/// Returns what runs as PID 1. guest-init has written it down before it handed over.
fn init_kind() -> String {
    let kind = fs::read_to_string(place::INIT_KIND).unwrap_or_default();
    match kind.trim() {
        known @ ("systemd" | "openrc" | "busybox") => known,
        "minimal" => "banger",
        _ => "other",
    }
    .to_owned()
}

/// When a shutdown that is under way is to be forced.
static FORCED: (Mutex<Option<Instant>>, Condvar) = (Mutex::new(None), Condvar::new());

/// Begins to shut down, or shortens the time of a shutdown that is under way.
fn shutdown(grace: Duration) -> Result<()> {
    let (lock, changed) = &FORCED;
    let mut forced = lock.lock().unwrap_or_else(PoisonError::into_inner);
    let until = Instant::now() + grace;
    if let Some(at) = *forced {
        *forced = Some(at.min(until));
        changed.notify_all();
        return Ok(());
    }
    thread::Builder::new()
        .stack_size(crate::STACK_BYTES)
        .spawn(move || end_machine(grace))
        .context("cannot start a thread")?;
    *forced = Some(until);
    Ok(())
}

/// Ends the machine, one way or the other.
fn end_machine(grace: Duration) {
    if power::is_systemd() {
        // systemd(1): starts poweroff.target.
        let poweroff = nix::libc::SIGRTMIN() + 4;
        // SAFETY: kill touches no memory; the number is a real-time signal that systemd handles.
        let asked = unsafe { nix::libc::kill(1, poweroff) } == 0;
        if asked {
            wait_until_forced();
        }
    } else {
        // Waits for the processes in the background, so that a second order can shorten it.
        let orderly = thread::Builder::new().stack_size(crate::STACK_BYTES).spawn(move || {
            power::end_processes(grace);
            let (lock, changed) = &FORCED;
            *lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            changed.notify_all();
        });
        if orderly.is_ok() {
            wait_until_forced();
        }
    }
    // Whatever still writes is stopped, so that nothing is lost half-way.
    let _ = signal::kill(Pid::from_raw(-1), signal::Signal::SIGSTOP);
    power::finish();
}

fn wait_until_forced() {
    let (lock, changed) = &FORCED;
    let mut forced = lock.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(left) =
        forced.map(|at| at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    {
        forced = changed.wait_timeout(forced, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn without_a_root_only_what_needs_none_is_answered() {
        let none = || Err(Error::unavailable("no root"));
        let asked = |words: &str| {
            let (mut host, guest) = UnixStream::pair().unwrap();
            host.write_all(format!("{{{words}}}\n").as_bytes()).unwrap();
            host.shutdown(std::net::Shutdown::Write).unwrap();
            let served = serve(guest, false, "", &none);
            let mut answer = String::new();
            host.read_to_string(&mut answer).unwrap();
            (answer, served.is_ok())
        };
        let hello = asked(r#""op":"hello""#);
        assert!(hello.0.contains("boot_id") && hello.1, "{hello:?}");
        // Only that this is no machine of the agent's keeps the clock from being set.
        let clock = asked(r#""op":"set-time","unix_ms":1"#);
        assert!(clock.0.contains("does not own its machine"), "{clock:?}");
        for op in ["ports", "boot", "account", "stats", "sync"] {
            let (answer, _) = asked(&format!(r#""op":"{op}""#));
            assert_eq!(answer, "{\"error\":\"no root\"}\n", "{op}");
        }
        assert_eq!(asked(r#""op":"watch-ports""#), (String::new(), false));
    }
}
