//! What the user chose: `config.toml`, and what holds where nothing is chosen.
//!
//! Every key is optional; an unknown one is refused with the nearest. Nothing is ever written.

mod image;
pub mod limits;
mod size;

pub use image::{ImageLimits, Mirror};
pub use size::Size;

use banger_doc::{Context, Error, Name, NetMode, Result, Vmm};
use serde::Deserialize;
use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

/// The image of `banger vm run` without `--image`.
pub const DEFAULT_IMAGE: &str = "debian-bookworm";
/// The kernel of an image that names none.
pub const DEFAULT_KERNEL: &str = "generic-6.12";
/// For how many days after its VM a repository of the host's keeps what was pulled out of it.
pub const PULLED_KEEP_DAYS: u64 = 30;
/// What always helps.
const HINT: &str =
    "correct that line, or remove it: the built-in value counts then, which 'banger doctor' shows";
/// The largest file that is read as a configuration.
const MAX_BYTES: u64 = 1 << 20;

/// `config.toml`, as the user wrote it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The image of a VM that names none.
    pub default_image: Option<String>,
    /// The kernel of an image that names none.
    pub default_kernel: Option<Name>,
    /// The VMM of a VM that names none.
    #[serde(deserialize_with = "from_text")]
    pub vmm: Option<Vmm>,
    /// The network of a VM that names none.
    #[serde(deserialize_with = "from_text")]
    pub net: Option<NetMode>,
    /// Sizes of a VM that names none.
    pub vm_defaults: VmDefaults,
    /// Programs to use instead of those in `PATH`.
    pub binaries: Binaries,
    /// The user that network helpers run as when banger is root.
    pub run_as: Option<String>,
    /// Registries, `host` or `host:port`, that may be spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// Registries asked in place of others.
    pub mirrors: Vec<Mirror>,
    /// What an image may ask for.
    pub image_limits: ImageLimits,
    /// Further image catalogs: paths of JSON files.
    pub catalogs: Vec<PathBuf>,
    /// Files of the host to write into every new VM.
    pub file_sync: Vec<FileSync>,
    /// Directories of git's that a repository outside them may lead to.
    pub trusted_git_dirs: Vec<PathBuf>,
    /// Patterns of untracked and ignored files that go into a VM with every workspace.
    pub workspace_include: Vec<String>,
    /// For how many days after its VM a repository of the host's keeps what was pulled out of it.
    pub pulled_keep_days: Option<u64>,
    /// What is kept of exports.
    pub exports: Exports,
}

/// `[vm_defaults]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VmDefaults {
    /// Virtual processors.
    pub vcpu: Option<u32>,
    /// Memory.
    pub memory: Option<Size>,
    /// Size of the work disk.
    pub disk: Option<Size>,
    /// Size of the overlay disk.
    pub overlay: Option<Size>,
}

/// `[exports]`: which copies of exports are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Exports {
    /// For how many days.
    pub keep_days: Option<u32>,
    /// How much room all of them may take together.
    pub bytes: Option<Size>,
}

impl Exports {
    /// Returns how old a copy becomes: 30 days.
    pub fn age(self) -> Duration {
        Duration::from_hours(24 * u64::from(self.keep_days.unwrap_or(30)))
    }

    /// Returns how many bytes all may take together: 512 MiB.
    pub fn room(self) -> u64 {
        self.bytes.map_or(512 << 20, Size::bytes)
    }
}

/// `[binaries]`: absolute paths.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Binaries {
    /// QEMU's system emulator.
    pub qemu: Option<PathBuf>,
    /// Firecracker.
    pub firecracker: Option<PathBuf>,
    /// Firecracker's jailer.
    pub jailer: Option<PathBuf>,
    /// pasta, of passt.
    pub pasta: Option<PathBuf>,
    /// The ssh client.
    pub ssh: Option<PathBuf>,
}

/// One `[[file_sync]]`.
#[derive(Clone, Debug, Deserialize)]
pub struct FileSync {
    /// A path on the host, absolute or below `~/`.
    pub host: String,
    /// A path in the guest, below `~/` or `/root/`.
    pub guest: String,
    /// Permission bits in octal; 0600 if absent.
    pub mode: Option<String>,
}

/// Every key there is, as `section.key`.
pub const KEYS: &[&str] = &[
    "default_image",
    "default_kernel",
    "vmm",
    "net",
    "vm_defaults.vcpu",
    "vm_defaults.memory",
    "vm_defaults.disk",
    "vm_defaults.overlay",
    "binaries.qemu",
    "binaries.firecracker",
    "binaries.jailer",
    "binaries.pasta",
    "binaries.ssh",
    "run_as",
    "insecure_registries",
    "mirrors.registry",
    "mirrors.mirror",
    "image_limits.layers",
    "image_limits.entries",
    "image_limits.path_bytes",
    "image_limits.depth",
    "image_limits.name_bytes",
    "image_limits.header_bytes",
    "image_limits.xattrs",
    "image_limits.bytes",
    "image_limits.file_bytes",
    "image_limits.extents",
    "image_limits.ratio",
    "image_limits.window",
    "catalogs",
    "file_sync.host",
    "file_sync.guest",
    "file_sync.mode",
    "trusted_git_dirs",
    "workspace_include",
    "pulled_keep_days",
    "exports.keep_days",
    "exports.bytes",
];

impl Config {
    /// Returns where the configuration lies: `$BANGER_CONFIG`, else
    /// `$XDG_CONFIG_HOME/banger/config.toml`, else `~/.config/banger/config.toml`; `None` without a
    /// home.
    pub fn location() -> Option<PathBuf> {
        let from = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        from("BANGER_CONFIG").or_else(|| {
            let dir = from("XDG_CONFIG_HOME").or_else(|| Some(from("HOME")?.join(".config")))?;
            Some(dir.join("banger/config.toml"))
        })
    }

    /// Returns the directories of git's that it names, as far as they are there: one may be on a disk that is not.
    pub fn git_dirs(&self) -> Vec<PathBuf> {
        self.trusted_git_dirs.iter().filter(|dir| dir.is_dir()).cloned().collect()
    }

    /// Reads the configuration; an absent file chooses nothing.
    pub fn load() -> Result<Self> {
        let Some(path) = Self::location() else { return Ok(Self::default()) };
        match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).context(format!("cannot read '{}'", path.display())),
            Ok(meta) if meta.len() > MAX_BYTES => {
                return Err(Error::failed(format!("'{}' is no configuration", path.display())));
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read '{}'", path.display()))?;
        Self::parse(&text, &path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let bad = |error: toml::de::Error| {
            Error::usage(format!("cannot read '{}'", path.display())).because(error).hint(HINT)
        };
        let table: toml::Table = text.parse().map_err(bad)?;
        check_keys(&table, "", path)?;
        let config: Self = toml::from_str(text).map_err(bad)?;
        config
            .check()
            .map_err(|error| error.or_hint(HINT))
            .with_context(|| format!("cannot use '{}'", path.display()))?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let binaries = &self.binaries;
        for (key, path) in [
            ("qemu", &binaries.qemu),
            ("firecracker", &binaries.firecracker),
            ("jailer", &binaries.jailer),
            ("pasta", &binaries.pasta),
            ("ssh", &binaries.ssh),
        ] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                return Err(Error::usage(format!(
                    "binaries.{key} is '{}', not an absolute path",
                    path.display()
                )));
            }
        }
        if let Some(path) = self.trusted_git_dirs.iter().find(|path| !path.is_absolute()) {
            return Err(Error::usage(format!(
                "trusted_git_dirs has '{}', not an absolute path",
                path.display()
            )));
        }
        if let Some(pattern) = self.workspace_include.iter().find(|pattern| {
            pattern.trim().is_empty()
                || pattern.len() > 4096
                || pattern.contains(['\n', '\r', '\0'])
        }) {
            return Err(Error::usage(format!(
                "workspace_include has '{}', which is no pattern of one line",
                banger_doc::visible(pattern, 80)
            )));
        }
        self.image_limits.check()?;
        for (i, entry) in self.mirrors.iter().enumerate() {
            entry.check().with_context(|| format!("mirrors entry {} is wrong", i + 1))?;
        }
        for (i, entry) in self.file_sync.iter().enumerate() {
            entry.check().with_context(|| format!("file_sync entry {} is wrong", i + 1))?;
        }
        Ok(())
    }

    /// Returns the image of a VM that names none.
    pub fn image(&self) -> &str {
        self.default_image.as_deref().unwrap_or(DEFAULT_IMAGE)
    }
}

impl FileSync {
    /// Returns the permission bits.
    pub fn mode_bits(&self) -> Result<u32> {
        let text = self.mode.as_deref().unwrap_or("0600");
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .ok_or_else(|| Error::usage(format!("mode '{text}' is not octal from 0 to 777")))
    }

    fn check(&self) -> Result<()> {
        self.mode_bits()?;
        let host = self.host.strip_prefix("~/").or_else(|| self.host.strip_prefix('/'));
        let guest = self.guest.strip_prefix("~/").or_else(|| self.guest.strip_prefix("/root/"));
        let plain = |rest: Option<&str>| {
            rest.is_some_and(|rest| !rest.is_empty() && !rest.split('/').any(|part| part == ".."))
        };
        if !plain(host) {
            return Err(Error::usage(format!(
                "host path '{}' has to be absolute or below '~/', without '..'",
                self.host
            )));
        }
        if !plain(guest) {
            return Err(Error::usage(format!(
                "guest path '{}' has to be below '~/' or '/root/', without '..'",
                self.guest
            )));
        }
        Ok(())
    }
}

fn check_keys(table: &toml::Table, prefix: &str, path: &Path) -> Result<()> {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        let known = KEYS.contains(&full.as_str());
        let section = format!("{full}.");
        if !known && !KEYS.iter().any(|known| known.starts_with(&section)) {
            let nearest = KEYS
                .iter()
                .min_by_key(|known| strsim::levenshtein(known, &full))
                .expect("because there are keys");
            return Err(Error::usage(format!("'{}' has an unknown key '{full}'", path.display()))
                .hint(format!("did you mean '{nearest}'? {HINT}")));
        }
        match value {
            toml::Value::Table(inner) if !known => check_keys(inner, &section, path)?,
            toml::Value::Array(items) if !known => {
                for inner in items.iter().filter_map(toml::Value::as_table) {
                    check_keys(inner, &section, path)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn from_text<'de, D, T>(deserializer: D) -> std::result::Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err = Error>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

/// What a VM gets where neither the command line nor the configuration says.
#[derive(Clone, Copy, Debug)]
pub struct HostDefaults {
    /// A quarter of the processors, 1 to 4.
    pub vcpu: u32,
    /// An eighth of the memory, 256 MiB to 8 GiB.
    pub memory_mib: u64,
    /// 8 GiB.
    pub disk_bytes: u64,
    /// 8 GiB.
    pub overlay_bytes: u64,
}

impl HostDefaults {
    /// Reads the host's processors and memory.
    pub fn of_this_host() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            vcpu: (cpus as u32 / 4).clamp(1, 4),
            memory_mib: (limits::host_memory_mib().unwrap_or(0) / 8).clamp(256, 8192),
            disk_bytes: 8 << 30,
            overlay_bytes: 8 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("config.toml"))
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            r#"
            default_image = "alpine"
            default_kernel = "mine"
            vmm = "qemu"
            net = "none"
            run_as = "nobody"
            insecure_registries = ["registry.lan:5000"]
            catalogs = ["/etc/banger/catalog.json"]
            trusted_git_dirs = ["/srv/git"]
            workspace_include = [".env.local"]
            pulled_keep_days = 7
            [[mirrors]]
            registry = "docker.io"
            mirror = "mirror.lan:5000/hub"
            [image_limits]
            layers = 100
            entries = 5000
            path_bytes = 1000
            depth = 50
            name_bytes = "8M"
            header_bytes = "64K"
            xattrs = 16
            bytes = "2G"
            file_bytes = "1G"
            extents = 1000
            ratio = 50
            window = "8M"
            [vm_defaults]
            vcpu = 2
            memory = "2G"
            disk = "16G"
            overlay = 4294967296
            [exports]
            keep_days = 7
            bytes = "1G"
            [binaries]
            qemu = "/opt/qemu"
            firecracker = "/opt/fc"
            jailer = "/opt/jailer"
            pasta = "/opt/pasta"
            ssh = "/opt/ssh"
            [[file_sync]]
            host = "~/.gitconfig"
            guest = "~/.gitconfig"
            mode = "0644"
            "#,
        )
        .unwrap();
        assert_eq!(config.image(), "alpine");
        assert_eq!(config.vmm, Some(Vmm::Qemu));
        assert_eq!(config.vm_defaults.memory.unwrap().bytes(), 2 << 30);
        assert_eq!(config.vm_defaults.overlay.unwrap().bytes(), 4 << 30);
        assert_eq!(config.file_sync[0].mode_bits().unwrap(), 0o644);
        assert_eq!(config.mirrors[0].mirror, "mirror.lan:5000/hub");
        assert_eq!(config.exports.age(), Duration::from_hours(7 * 24));
        assert_eq!(config.exports.room(), 1 << 30);
        assert_eq!(config.image_limits.window.unwrap().bytes(), 8 << 20);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let error = parse("[vm_defaults]\nvcpus = 2\n").unwrap_err();
        assert_eq!(error.kind(), banger_doc::Kind::Usage);
        assert!(error.hint_text().unwrap().contains("'vm_defaults.vcpu'"), "{error:?}");
        assert!(parse("[[file_sync]]\nhost='/a'\nguest='~/a'\nfoo=1\n").is_err());
    }

    #[test]
    fn wrong_values_are_refused() {
        for text in [
            "vmm = 'xen'",
            "trusted_git_dirs = ['git']",
            "workspace_include = ['']",
            "workspace_include = '.env'",
            "pulled_keep_days = -1",
            "default_kernel = '../x'",
            "[binaries]\nqemu = 'qemu'",
            "[vm_defaults]\nmemory = '-1G'",
            "[[file_sync]]\nhost = '~/../x'\nguest = '~/x'",
            "[[file_sync]]\nhost = '~x'\nguest = '~/x'",
            "[[file_sync]]\nhost = '/x'\nguest = '/etc/x'",
            "[[file_sync]]\nhost = '/x'\nguest = '~/x'\nmode = '1777'",
            "[[mirrors]]\nregistry = 'docker.io'",
            "[[mirrors]]\nregistry = 'docker.io'\nmirror = 'https://mirror.lan'",
            "[[mirrors]]\nregistry = 'docker.io/library'\nmirror = 'mirror.lan'",
            "[[mirrors]]\nregistry = 'docker.io'\nmirror = ''",
            "[exports]\nkeep_days = -1",
            "[exports]\nkeep_days = 'all'",
            "[exports]\nbytes = 0",
            "[image_limits]\nlayers = 0",
            "[image_limits]\nlayers = 513",
            "[image_limits]\ndepth = -1",
            "[image_limits]\nwindow = '3M'",
            "[image_limits]\nwindow = '4G'",
            "[image_limits]\nbytes = 'lots'",
            "= 1",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.hint_text().is_some(), "{text}");
        }
    }

    #[test]
    fn a_wrong_mirror_is_told_how_to_be_written() {
        let text = "[[mirrors]]\nregistry = 'docker.io'\nmirror = 'https://mirror.lan'";
        let error = parse(text).unwrap_err();
        assert!(
            error.hint_text().unwrap().contains("mirror = \"mirror.lan:5000/hub\""),
            "{error:?}"
        );
    }
}
