//! Users of root's that nobody else is (`docs/security.md`).

use std::ops::Range;

/// The users that root's VMMs run as: the first, and the process number of whoever started it. Those of other
/// kinds follow them, up to 2^31; all are nobody's (systemd's UIDS-GIDS.md). There is one for every process number that Linux
/// can give (proc_sys_kernel(5)).
pub const VMM_USERS: Range<u32> = 0x7000_0000..0x7040_0000;
