//! Options of the runtime handler, in the forms in which containerd and its clients pass them on.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use containerd_shim_protos::shim::oci::Options as RuncOptions;
use protobuf::well_known_types::any::Any;
use protobuf::{CodedInputStream, Message};
use serde::{Deserialize, Serialize};

/// Type of the options of a handler whose type is `io.containerd.runc.v2`.
const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// Type of the options of every other handler (CRI): its TOML, or a path. containerd 1.7 renamed the package.
const GENERIC_OPTIONS: [&str; 2] = ["runtimeoptions.v1.Options", "cri.runtimeoptions.v1.Options"];
/// Type of the options that clients of containerd 1.x set for a runtime whose name does not begin with
/// `io.containerd.runc`: those of the shim of version 1.
const CREATE_OPTIONS: &str = "containerd.linux.runc.CreateOptions";
/// Field of `containerd.runc.v1.Options` that containerd 2.0 removed; still sent by 1.6 and 1.7.
const CRIU_PATH_FIELD: u32 = 8;
/// Most bytes of a file named by `ConfigPath`.
const CONFIG_LIMIT: u64 = 1 << 20;

/// What an administrator can set on a runtime handler. The names in TOML are those of
/// `containerd.runc.v1.Options`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Options {
    /// Do not use `pivot_root`.
    pub no_pivot_root: bool,
    /// Do not make a session keyring.
    pub no_new_keyring: bool,
    /// Cgroup that the shim itself joins.
    pub shim_cgroup: String,
    /// Owner of the pipes of the container's standard streams.
    pub io_uid: u32,
    /// Group of the pipes of the container's standard streams.
    pub io_gid: u32,
    /// OCI runtime: name or path.
    pub binary_name: String,
    /// State directory of the OCI runtime.
    pub root: String,
    /// Make cgroups through systemd.
    pub systemd_cgroup: bool,
    /// criu program (containerd 1.x). runc finds criu in `PATH` since 1.0 and has no flag for it.
    pub criu_path: String,
    /// Checkpoint that a container is restored from.
    pub criu_image_path: String,
    /// Where criu works.
    pub criu_work_path: String,
    /// File of the generic options; it is Assay's configuration.
    pub config_path: String,
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// A type that is none of these.
    #[error(
        "runtime options of the unknown type '{0}'; expected containerd.runc.v1.Options or runtimeoptions.v1.Options"
    )]
    Type(String),
    /// Not the message that its type says.
    #[error("runtime options do not decode: {0}")]
    Decode(#[from] protobuf::Error),
    /// TOML that does not parse.
    #[error("runtime options of the handler, as TOML: {0}")]
    Toml(#[from] toml::de::Error),
    /// `ConfigPath` that cannot be read.
    #[error("runtime option ConfigPath = '{}': {source}", path.display())]
    ConfigPath {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Options {
    /// Reads the options of a request; none gives the defaults.
    ///
    /// # Errors
    /// When the options are of an unknown type, do not decode, or name a file that cannot be read.
    pub fn decode(any: Option<&Any>) -> Result<Self, OptionsError> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
            return Ok(Self::default());
        };
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        if name == RUNC_OPTIONS {
            Self::from_runc(&RuncOptions::parse_from_bytes(&any.value)?)
        } else if GENERIC_OPTIONS.contains(&name) {
            Self::from_generic(&any.value)
        } else if name == CREATE_OPTIONS {
            Self::from_create(&any.value)
        } else {
            Err(OptionsError::Type(name.chars().take(80).collect()))
        }
    }

    fn from_runc(options: &RuncOptions) -> Result<Self, OptionsError> {
        let criu_path = options
            .special_fields
            .unknown_fields()
            .get(CRIU_PATH_FIELD)
            .and_then(|value| match value {
                protobuf::UnknownValueRef::LengthDelimited(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                _ => None,
            })
            .unwrap_or_default();
        Ok(Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup.clone(),
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            binary_name: options.binary_name.clone(),
            root: options.root.clone(),
            systemd_cgroup: options.systemd_cgroup,
            criu_path,
            criu_image_path: options.criu_image_path.clone(),
            criu_work_path: options.criu_work_path.clone(),
            config_path: String::new(),
        })
    }

    /// `containerd.linux.runc.CreateOptions`: `no_pivot_root` 1, `no_new_keyring` 8, `shim_cgroup` 9, `io_uid` 10,
    /// `io_gid` 11, `criu_work_path` 12, `criu_image_path` 13. What lies between is about restoring, where the stock
    /// shim does not use it either.
    fn from_create(bytes: &[u8]) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        let mut stream = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = stream.read_raw_tag_or_eof()? {
            match tag {
                0x08 => options.no_pivot_root = stream.read_bool()?,
                0x40 => options.no_new_keyring = stream.read_bool()?,
                0x4a => options.shim_cgroup = stream.read_string()?,
                0x50 => options.io_uid = stream.read_uint32()?,
                0x58 => options.io_gid = stream.read_uint32()?,
                0x62 => options.criu_work_path = stream.read_string()?,
                0x6a => options.criu_image_path = stream.read_string()?,
                _ => skip(&mut stream, tag)?,
            }
        }
        Ok(options)
    }

    /// `runtimeoptions.v1.Options`: `type_url` 1, `config_path` 2, `config_body` 3. The body is the handler's own TOML
    /// table; a file named by `config_path` may set the same keys beside Assay's.
    fn from_generic(bytes: &[u8]) -> Result<Self, OptionsError> {
        let mut path = String::new();
        let mut body = Vec::new();
        let mut stream = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = stream.read_raw_tag_or_eof()? {
            match tag {
                0x12 => path = stream.read_string()?,
                0x1a => body = stream.read_bytes()?,
                _ => skip(&mut stream, tag)?,
            }
        }
        let mut options: Self = if body.is_empty() {
            Self::default()
        } else {
            toml::from_str(&String::from_utf8_lossy(&body))?
        };
        if options.config_path.is_empty() {
            options.config_path = path;
        }
        if !options.config_path.is_empty() && body.is_empty() {
            let path = options.config_path.clone();
            options = toml::from_str(&read(Path::new(&path))?)?;
            options.config_path = path;
        }
        Ok(options)
    }
}

fn skip(stream: &mut CodedInputStream<'_>, tag: u32) -> protobuf::Result<()> {
    stream.skip_field(protobuf::rt::WireType::new(tag & 7).unwrap_or(protobuf::rt::WireType::Varint))
}

fn read(path: &Path) -> Result<String, OptionsError> {
    let error = |source| OptionsError::ConfigPath {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    fs::File::open(path)
        .map_err(error)?
        .take(CONFIG_LIMIT)
        .read_to_string(&mut text)
        .map_err(error)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, value: Vec<u8>) -> Any {
        Any {
            type_url: name.into(),
            value,
            ..Any::default()
        }
    }

    fn generic(path: &str, body: &str) -> Vec<u8> {
        let mut bytes = vec![0x0a, 1, b'x'];
        for (tag, text) in [(0x12, path), (0x1a, body)] {
            if !text.is_empty() {
                bytes.push(tag);
                bytes.push(u8::try_from(text.len()).unwrap());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        bytes
    }

    #[test]
    fn options_of_the_runc_type_are_read_whole() {
        let mut runc = RuncOptions::new();
        runc.binary_name = "crun".into();
        runc.root = "/r".into();
        runc.systemd_cgroup = true;
        runc.io_uid = 7;
        let mut bytes = runc.write_to_bytes().unwrap();
        // Field 8, length-delimited: what containerd 1.7 sends for CriuPath.
        bytes.extend_from_slice(&[0x42, 5]);
        bytes.extend_from_slice(b"/criu");
        let options = Options::decode(Some(&any("containerd.runc.v1.Options", bytes))).unwrap();
        assert_eq!(options.binary_name, "crun");
        assert_eq!(options.criu_path, "/criu");
        assert!(options.systemd_cgroup);
        assert_eq!(options.io_uid, 7);
    }

    #[test]
    fn options_of_clients_of_containerd_1_are_read_and_what_is_not_used_is_passed_over() {
        let mut bytes = vec![0x08, 1, 0x10, 1, 0x32, 1, b'n', 0x40, 1, 0x4a, 2, b'/', b's'];
        bytes.extend_from_slice(&[0x50, 0xe8, 7, 0x58, 0xd0, 0x0f, 0x62, 1, b'w', 0x6a, 1, b'i']);
        let options = Options::decode(Some(&any(CREATE_OPTIONS, bytes))).unwrap();
        let expected = Options {
            no_pivot_root: true,
            no_new_keyring: true,
            shim_cgroup: "/s".into(),
            io_uid: 1000,
            io_gid: 2000,
            criu_work_path: "w".into(),
            criu_image_path: "i".into(),
            ..Options::default()
        };
        assert_eq!(options, expected);
        assert!(Options::decode(Some(&any(CREATE_OPTIONS, vec![0x4a, 9]))).is_err());
    }

    #[test]
    fn the_handlers_toml_is_read_under_both_package_names() {
        let body = "BinaryName = 'crun'\nSystemdCgroup = true\nShimCgroup = '/shims'\n";
        for name in GENERIC_OPTIONS {
            let options = Options::decode(Some(&any(name, generic("", body)))).unwrap();
            assert_eq!(options.binary_name, "crun");
            assert!(options.systemd_cgroup);
            assert_eq!(options.shim_cgroup, "/shims");
        }
    }

    #[test]
    fn a_file_named_by_config_path_sets_the_same_keys_and_is_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "policy = '/etc/p'\nBinaryName = 'crun'\n").unwrap();
        let path = path.to_str().unwrap();
        let options = Options::decode(Some(&any("runtimeoptions.v1.Options", generic(path, "")))).unwrap();
        assert_eq!(options.binary_name, "crun");
        assert_eq!(options.config_path, path);
        let missing = Options::decode(Some(&any("runtimeoptions.v1.Options", generic("/nowhere", ""))));
        insta::assert_snapshot!(missing.unwrap_err(), @"runtime option ConfigPath = '/nowhere': No such file or directory (os error 2)");
    }

    #[test]
    fn unknown_types_and_bad_bytes_are_errors() {
        assert!(matches!(
            Options::decode(Some(&any("x.Options", vec![]))),
            Err(OptionsError::Type(_))
        ));
        assert!(Options::decode(Some(&any(RUNC_OPTIONS, vec![0xff]))).is_err());
        assert!(Options::decode(Some(&any("runtimeoptions.v1.Options", vec![0x1a, 200]))).is_err());
        assert_eq!(Options::decode(None).unwrap(), Options::default());
    }
}
