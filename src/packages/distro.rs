//! Which distribution an image says it is: `os-release`.

use serde::{Deserialize, Serialize};

use super::register::Register;

/// Largest `os-release` in bytes.
const LIMIT: u64 = 64 << 10;

/// A distribution. <https://www.freedesktop.org/software/systemd/man/latest/os-release.html>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distro {
    /// `ID`, `debian` for example.
    pub id: String,
    /// `VERSION_ID`; empty where there is none.
    pub version: String,
}

pub(super) fn read(register: &mut Register<'_>) -> Option<Distro> {
    let path = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| register.file(path))?;
    let text = register.text(&path, LIMIT)?;
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim_matches(['"', '\'']).to_owned())
    };
    let is_word = |word: &String| {
        !word.is_empty()
            && word.len() <= 64
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    Some(Distro {
        id: value("ID").filter(is_word)?,
        version: value("VERSION_ID").filter(is_word).unwrap_or_default(),
    })
}
