//! System calls that no tool needs (seccomp(2)): what is refused here is out of reach for one that was
//! broken, whatever its namespaces are.

use nix::{errno::Errno, libc};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Calls of another kind on this architecture, which the list does not know, begin here.
#[cfg(target_arch = "x86_64")]
const OTHER_CALLS: u32 = 0x4000_0000;

/// Networks, other processes, namespaces, mounts, memory that no limit counts, and the parts of a
/// kernel that most often had faults.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_fanotify_init,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_vmsplice,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_personality,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_reboot,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
];

/// Where a filter finds what is called (`struct seccomp_data`): the call, the architecture, and the lower half of
/// the first word, since both architectures are little-endian.
const NUMBER: u32 = 0;
const KIND: u32 = 4;
const FIRST: u32 = 16;

/// Refuses those calls to the calling process and whatever it becomes; processes of its own too, but no
/// threads. It has to have no new privileges already.
pub(crate) fn refuse() -> nix::Result<()> {
    let filter = filter();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program lives through the call, which only reads it.
    let done =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    Errno::result(done).map(drop)
}

fn filter() -> Vec<libc::sock_filter> {
    let step =
        |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at: u32| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let end = |what: u32| step(libc::BPF_RET | libc::BPF_K, what, 0, 0);
    let refusal = |errno: i32| end(libc::SECCOMP_RET_ERRNO | errno as u32);
    // The next step is taken only if the word is the same.
    let only_if = |k: u32| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, 0, 1);
    let unless = |k: u32| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, 1, 0);
    let mut steps =
        vec![load(KIND), unless(ARCHITECTURE), end(libc::SECCOMP_RET_KILL_PROCESS), load(NUMBER)];
    #[cfg(target_arch = "x86_64")]
    steps.extend([
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, OTHER_CALLS, 0, 1),
        end(libc::SECCOMP_RET_KILL_PROCESS),
    ]);
    for call in REFUSED {
        steps.extend([only_if(*call as u32), refusal(libc::EPERM)]);
    }
    // Its flags are out of a filter's sight; every libc takes the older one then.
    steps.extend([only_if(libc::SYS_clone3 as u32), refusal(libc::ENOSYS)]);
    let is = |call: libc::c_long, over: u8| {
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 0, over)
    };
    steps.extend([
        is(libc::SYS_clone, 4),
        load(FIRST),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, libc::CLONE_THREAD as u32, 1, 0),
        refusal(libc::EPERM),
        end(libc::SECCOMP_RET_ALLOW),
    ]);
    // A process may end itself by a signal.
    steps.extend([
        is(libc::SYS_tgkill, 4),
        load(FIRST),
        unless(std::process::id()),
        refusal(libc::EPERM),
        end(libc::SECCOMP_RET_ALLOW),
    ]);
    steps.push(end(libc::SECCOMP_RET_ALLOW));
    steps
}
