//! Comparison of the mounts that a create request asks for with those of the container's snapshot.

use serde::{Deserialize, Serialize};

use super::Fault;
use super::remap::Mapping;

/// A mount as containerd describes it (`containerd.types.Mount`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// File system type.
    pub r#type: String,
    /// Source.
    pub source: String,
    /// Target below the root file system; empty for the root itself.
    pub target: String,
    /// Options, one per entry.
    pub options: Vec<String>,
}

impl Mount {
    /// The value of `key=value` among the options.
    pub(crate) fn option(&self, key: &str) -> Option<&str> {
        self.options
            .iter()
            .find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }

    fn is_read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro" || option == "rro")
    }
}

/// Accepts `asked` only when it mounts what the snapshot's own mounts `held` mount, and nothing wider.
///
/// Two differences are allowed, each of which narrows: an added `ro` or `rro`, and an added `context=` that is the
/// container's own `mount_label`. Mappings of ids must be those of the container's user namespace.
pub(super) fn compare(asked: &[Mount], held: &[Mount], mount_label: &str, mapping: &Mapping) -> Result<(), Fault> {
    if asked.is_empty() {
        return Err(Fault::MountsForeign {
            what: "the request has no mount at all, the snapshot has one".to_owned(),
        });
    }
    if asked.len() != held.len() {
        return Err(Fault::MountsForeign {
            what: format!("{} mounts instead of the snapshot's {}", asked.len(), held.len()),
        });
    }
    for (asked, held) in asked.iter().zip(held) {
        if held.r#type.starts_with("fuse") {
            return Err(Fault::RootlessLayout {
                what: format!("its snapshots are mounted through {}", held.r#type),
            });
        }
        for (what, asked, held) in [
            ("type", &asked.r#type, &held.r#type),
            ("source", &asked.source, &held.source),
            ("target", &asked.target, &held.target),
        ] {
            if asked != held {
                return Err(Fault::MountsForeign {
                    what: format!("{what} '{asked}' instead of '{held}'"),
                });
            }
        }
        compare_options(asked, held, mount_label, mapping)?;
    }
    Ok(())
}

fn compare_options(asked: &Mount, held: &Mount, mount_label: &str, mapping: &Mapping) -> Result<(), Fault> {
    let narrowed = asked.is_read_only();
    for option in &held.options {
        // Writable by name may become read-only, which is checked below.
        if option == "rw" && narrowed {
            continue;
        }
        if (option.starts_with("uidmap=") || option.starts_with("gidmap=")) && !mapping.is_option(option) {
            return Err(Fault::MountsForeign {
                what: format!("{option} is not the mapping of the container's user namespace"),
            });
        }
        let kept = match option.as_str() {
            // `rro` also covers mounts below; it may replace `ro`, never the reverse.
            "ro" => narrowed,
            option => asked.options.iter().any(|asked| asked == option),
        };
        if !kept {
            return Err(Fault::MountsForeign {
                what: format!("the snapshot's option {option} is missing"),
            });
        }
    }
    for (place, option) in asked.options.iter().enumerate() {
        if asked.options.iter().skip(place + 1).any(|other| other == option) {
            return Err(Fault::MountOptionUnknown { option: option.clone() });
        }
        let own = held.options.contains(option)
            || option == "ro"
            || option == "rro"
            || (!mount_label.is_empty() && *option == format!("context=\"{mount_label}\""));
        if !own {
            let key = option.split('=').next().unwrap_or(option);
            // The same key with another value mounts something else; a key the snapshot does not have is unknown.
            return Err(if held.option(key).is_some() {
                Fault::MountsForeign {
                    what: format!("{option} differs from the snapshot's"),
                }
            } else {
                Fault::MountOptionUnknown { option: option.clone() }
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::remap::IdMapping;

    fn overlay(options: &[&str]) -> Vec<Mount> {
        vec![Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: options.iter().map(ToString::to_string).collect(),
        }]
    }

    const HELD: &[&str] = &[
        "index=off",
        "workdir=/s/3/work",
        "upperdir=/s/3/fs",
        "lowerdir=/s/2/fs:/s/1/fs",
    ];

    fn code(asked: &[&str], held: &[&str], label: &str) -> &'static str {
        compare(&overlay(asked), &overlay(held), label, &Mapping::default())
            .err()
            .map_or("equal", |fault| fault.code())
    }

    fn with<'a>(extra: &'a [&'a str]) -> Vec<&'a str> {
        [HELD, extra].concat()
    }

    #[test]
    fn the_snapshot_s_own_mounts_pass_in_any_order() {
        assert_eq!(code(HELD, HELD, ""), "equal");
        let mut reversed = HELD.to_vec();
        reversed.reverse();
        assert_eq!(code(&reversed, HELD, ""), "equal");
    }

    #[test]
    fn only_narrowing_options_may_be_added() {
        assert_eq!(code(&with(&["ro"]), HELD, ""), "equal");
        assert_eq!(code(&with(&["rro"]), &with(&["ro"]), ""), "equal");
        assert_eq!(code(&with(&["ro"]), &with(&["rw"]), ""), "equal");
        assert_eq!(code(&with(&["ro"]), &with(&["rro"]), ""), "mounts-foreign");
        assert_eq!(code(HELD, &with(&["ro"]), ""), "mounts-foreign");
        assert_eq!(code(&with(&["rw"]), &with(&["ro"]), ""), "mounts-foreign");
        assert_eq!(code(&with(&["rw"]), HELD, ""), "mount-option-unknown");
        assert_eq!(code(&with(&["userxattr"]), HELD, ""), "mount-option-unknown");
        assert_eq!(code(&with(&["redirect_dir=on"]), HELD, ""), "mount-option-unknown");
        assert_eq!(code(&HELD[1..], HELD, ""), "mounts-foreign");
    }

    #[test]
    fn a_context_must_be_the_container_s_own_label() {
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        let option = format!("context=\"{label}\"");
        assert_eq!(code(&with(&[&option]), HELD, label), "equal");
        assert_eq!(code(&with(&[&option]), HELD, "other"), "mount-option-unknown");
        assert_eq!(code(&with(&["context=\"\""]), HELD, ""), "mount-option-unknown");
    }

    #[test]
    fn another_directory_is_foreign() {
        for (place, other) in [
            (1, "workdir=/s/4/work"),
            (2, "upperdir=/s/4/fs"),
            (3, "lowerdir=/s/1/fs"),
            (3, "lowerdir=/evil:/s/2/fs:/s/1/fs"),
        ] {
            let mut asked = HELD.to_vec();
            asked[place] = other;
            assert_eq!(code(&asked, HELD, ""), "mounts-foreign", "{other}");
        }
        // The kernel takes the last of two: both readings must not exist.
        assert_eq!(code(&with(&["lowerdir=/evil"]), HELD, ""), "mounts-foreign");
        assert_eq!(code(&with(&["index=off"]), HELD, ""), "mount-option-unknown");
    }

    #[test]
    fn type_source_target_and_number_must_agree() {
        let held = overlay(HELD);
        let change = |edit: fn(&mut Mount)| {
            let mut asked = overlay(HELD);
            edit(&mut asked[0]);
            compare(&asked, &held, "", &Mapping::default()).unwrap_err().code()
        };
        assert_eq!(change(|mount| mount.r#type = "bind".to_owned()), "mounts-foreign");
        assert_eq!(change(|mount| mount.source = "/etc".to_owned()), "mounts-foreign");
        assert_eq!(change(|mount| mount.target = "etc".to_owned()), "mounts-foreign");
        let twice = [overlay(HELD), overlay(HELD)].concat();
        assert!(compare(&twice, &held, "", &Mapping::default()).is_err());
        assert!(compare(&[], &held, "", &Mapping::default()).is_err());
        assert!(compare(&[], &[], "", &Mapping::default()).is_err());
    }

    #[test]
    fn mapped_ids_must_be_those_of_the_user_namespace() {
        let mapped = overlay(&with(&["uidmap=0:1000:10", "gidmap=0:1000:10"]));
        let line = IdMapping {
            container_id: 0,
            host_id: 1000,
            size: 10,
        };
        let own = Mapping {
            uids: vec![line.clone()],
            gids: vec![line],
        };
        assert!(compare(&mapped, &mapped, "", &own).is_ok());
        let fault = compare(&mapped, &mapped, "", &Mapping::default()).unwrap_err();
        assert_eq!(fault.code(), "mounts-foreign");
    }

    #[test]
    fn fuse_snapshots_are_a_rootless_layout() {
        let mut mounts = overlay(HELD);
        mounts[0].r#type = "fuse3.fuse-overlayfs".to_owned();
        let fault = compare(&mounts, &mounts, "", &Mapping::default()).unwrap_err();
        assert_eq!(fault.code(), "rootless-layout");
    }
}
