//! Whether a server that has just come up lets somebody in.

use banger_doc::{Context, Error, Result};
use ssh2::{CheckResult, KnownHostFileKind, MethodType, Session};
use std::{os::unix::net::UnixStream, path::Path, time::Duration};

/// How long one try may take: an emulated guest needs seconds for a key exchange.
const TRY: Duration = Duration::from_secs(20);

/// Who wants in, and whom it takes for the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Login<'a> {
    /// The host's name, as `known` has it.
    pub(crate) host: &'a str,
    /// The line of known_hosts.
    pub(crate) known: &'a str,
    /// The user, whom banger's key lets in; another user's keys are ssh's business.
    pub(crate) user: Option<&'a str>,
    /// banger's private key.
    pub(crate) key: &'a Path,
}

/// What a try came to.
#[derive(Debug)]
pub(crate) enum Try {
    /// It would let ssh in.
    In,
    /// It shows the right key and lets nobody in with banger's.
    Refused(Error),
    /// It does not serve yet.
    NotYet(Error),
}

impl Login<'_> {
    /// Exchanges keys and logs in, as ssh will.
    pub(crate) fn attempt(&self, stream: UnixStream) -> Try {
        let session = match self.exchange(stream) {
            Ok(session) => session,
            Err(error) => return Try::NotYet(error),
        };
        let Some(user) = self.user else { return Try::In };
        let entered = session.userauth_pubkey_file(user, None, self.key, None);
        let _ = session.disconnect(None, "ready", None);
        match entered {
            Ok(()) => Try::In,
            Err(error) => Try::Refused(
                Error::failed(format!("the ssh server of '{}' lets no '{user}' in", self.host))
                    .because(error),
            ),
        }
    }

    fn exchange(&self, stream: UnixStream) -> Result<Session> {
        let failed = "the guest's ssh server does not exchange keys";
        let mut session = Session::new().context(failed)?;
        session.set_timeout(TRY.as_millis() as u32);
        session.method_pref(MethodType::HostKey, "ssh-ed25519").context(failed)?;
        session.set_tcp_stream(stream);
        session.handshake().context(failed)?;
        let mut known = session.known_hosts().context(failed)?;
        known.read_str(self.known, KnownHostFileKind::OpenSSH).context(failed)?;
        let (key, _) = session.host_key().ok_or_else(|| Error::failed("it shows no host key"))?;
        match known.check(self.host, key) {
            CheckResult::Match => Ok(session),
            _ => Err(Error::failed("the guest's ssh server shows another host key")),
        }
    }
}
